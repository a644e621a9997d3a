"""Trees, bushes and hedges."""

from __future__ import annotations

import numpy as np

from .camera import NEAR_M
from .painter import Painter
from .shapes import RAGGED, Points, bar
from .things import Plant

BARK = (92, 74, 58)
SNOWY = (206, 212, 216)
LEAF = np.array([(-0.9, -0.9, 0.0), (0.9, -0.9, 0.0), (0.9, 0.9, 0.0)])
LEAF_PX = 15.0
"""Single leaves are painted where a metre takes at least this many pixels."""


def paint_plant(painter: Painter, plant: Plant) -> None:
    """A trunk and clumps of leaves, darker below and on the side away from the sun."""
    if painter.camera.depth(plant.z) < NEAR_M:
        return
    if plant.trunk:
        thick = 0.14 + 0.03 * plant.height
        painter.fill(bar(plant.x, -0.1, plant.x, plant.trunk + 0.8, thick, plant.z), BARK, "vegetation", 0.9)
    feet = np.array([(blob.x, blob.y, blob.radius) for blob in plant.blobs])[:, None]
    outlines = np.empty((len(plant.blobs), len(RAGGED[0]), 3))
    outlines[..., :2] = RAGGED[[blob.jag for blob in plant.blobs]] * feet[..., 2:] + feet[..., :2]
    outlines[..., 0] += plant.x
    outlines[..., 2] = plant.z
    lean = painter.light.sun / max(plant.width, 0.1)
    painter.fill(outlines, plant.color, "vegetation", [blob.tone * (1 - lean * blob.x) for blob in plant.blobs])
    if painter.pixels_per_metre(plant.z) > LEAF_PX:
        _paint_leaves(painter, plant, outlines)


def _paint_leaves(painter: Painter, plant: Plant, clumps: Points) -> None:
    """Flecks of light and shade inside each clump."""
    middles = clumps.mean(axis=1, keepdims=True)
    places = (middles + (clumps[:, ::2] - middles) * 0.62).reshape(-1, 1, 3)
    leaves = places + LEAF * (0.13 * max(blob.radius for blob in plant.blobs))
    light = SNOWY if painter.air.weather == "snow" else plant.color
    painter.fill(leaves[::2], light, None, 1.22)
    painter.fill(leaves[1::2], plant.color, None, 0.66)
