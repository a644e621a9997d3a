"""Buildings, walls and fences."""

from __future__ import annotations

import numpy as np

from .dice import Dice
from .painter import Painter
from .shapes import Block, Points, Rect, grid, panels
from .things import Building, Fence, Wall

LAMPLIGHT = (255, 214, 140)
DETAIL_PX = 5.0
"""Details are painted where a metre takes at least this many pixels."""


def paint_building(painter: Painter, house: Building) -> None:
    """A house with windows on the faces that can be seen."""
    faces = painter.block(Block.of(house, -0.2), house.color, "building")
    if house.gable:
        lean = house.width * 0.42
        roof = Block(
            house.left - 0.3,
            house.right + 0.3,
            house.height,
            house.height + house.gable,
            house.near,
            house.far,
            lean,
        )
        painter.block(roof, house.roof, "building")
    else:
        cornice = Block(
            house.left - 0.2, house.right + 0.2, house.height - 0.5, house.height, house.near, house.far
        )
        painter.block(cornice, house.roof, "building")
    if faces.side is not None:
        _paint_front(painter, house, faces.side, house.bays, painter.side_shade(faces))
    if faces.near is not None and painter.pixels_per_metre(house.near) > DETAIL_PX:
        _paint_front(painter, house, faces.near, max(1, int(house.width / 3.2)), 1.0)


def _paint_front(painter: Painter, house: Building, face: Points, bays: int, shade: float) -> None:
    ground = 1 / house.floors
    first = 1 if house.shop else 0
    if house.brick and painter.pixels_per_metre(house.near) > 2 * DETAIL_PX:
        courses: list[Rect] = [(0, v / 24, 1, v / 24 + 0.009) for v in range(24)]
        painter.fill(panels(face, courses), house.color, None, shade * 0.82)
    if house.floors > first:
        windows = grid(bays, house.floors - first, (0.02, first * ground, 0.98, 0.97), (0.52, 0.58))
        _paint_windows(painter, house, panels(face, windows), shade)
    if house.shop:
        painter.fill(
            panels(face, grid(max(1, bays // 2), 1, (0, 0, 1, 0.78 * ground), (0.84, 0.86))),
            house.window,
            None,
            1.5 if painter.light.lamps else shade,
            glowing=painter.light.lamps,
        )
        painter.fill(panels(face, [(0.02, 0.8 * ground, 0.98, ground)]), house.roof, None, shade * 1.15)
    else:
        painter.fill(panels(face, [(0.44, 0, 0.44 + 0.5 / bays, 0.72 * ground)]), house.roof, None, shade * 0.7)


def _paint_windows(painter: Painter, house: Building, windows: Points, shade: float) -> None:
    if not painter.light.lamps:
        painter.fill(windows, house.window, None, shade)
        return
    dice = Dice(house.lit, len(windows))
    lit = np.array([dice.chance(0.35) for _ in windows])
    painter.fill(windows[~lit], (40, 44, 56), None, shade)
    painter.fill(windows[lit], LAMPLIGHT, None, 0.85, glowing=True)


def paint_wall(painter: Painter, wall: Wall) -> None:
    """A wall with a coping and joints."""
    faces = painter.block(Block.of(wall, -0.2), wall.color, "wall")
    painter.block(
        Block(wall.left - 0.08, wall.right + 0.08, wall.height - 0.18, wall.height, wall.near, wall.far),
        wall.color,
        "wall",
        0.8,
    )
    if faces.side is None or painter.pixels_per_metre(wall.near) < DETAIL_PX:
        return
    shade = painter.side_shade(faces) * 0.8
    joints: list[Rect] = [(k / wall.panels, 0, k / wall.panels + 0.012, 1) for k in range(wall.panels)]
    courses: list[Rect] = [(0, v, 1, v + 0.02) for v in (0.25, 0.5, 0.75)]
    painter.fill(panels(faces.side, joints + courses), wall.color, None, shade)


def paint_fence(painter: Painter, fence: Fence) -> None:
    """Posts and pickets; all between them is labelled fence, as in Cityscapes, though one sees through."""
    for face in _fence_faces(painter, fence):
        painter.cover(face, "fence")
        bars = _rail_bars(fence) if fence.rail else _picket_bars(painter, fence)
        painter.fill(panels(face, bars), fence.color, "fence", 1.0 - 0.5 * abs(painter.light.sun))


def _fence_faces(painter: Painter, fence: Fence) -> list[Points]:
    faces = Block.of(fence, -0.1).faces(painter.camera)
    return [face for face in (faces.side, faces.near) if face is not None]


def _rail_bars(fence: Fence) -> list[Rect]:
    posts = grid(max(2, int(fence.length / 2)), 1, fill=(0.1, 1.0))
    return [*posts, (0, 0.5, 1, 0.95), (0, 0.12, 1, 0.32)]


def _picket_bars(painter: Painter, fence: Fence) -> list[Rect]:
    spacing = 0.28 if painter.pixels_per_metre(fence.near) > 2 * DETAIL_PX else 0.6
    return [
        *grid(max(2, int(max(fence.length, fence.width) / spacing)), 1, fill=(0.4, 1.0)),
        (0, 0.1, 1, 0.2),
        (0, 0.78, 1, 0.9),
    ]
