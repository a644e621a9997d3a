"""Paints a whole world: back to front, so that whatever is nearer hides what is behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roadseg.runtime import IGNORE

from .camera import NEAR_M, Camera
from .dice import Dice
from .furniture import paint_lamp, paint_sign, paint_signal
from .greenery import paint_plant
from .ground import paint_ground, paint_headlights, paint_shadows, paint_sky, paint_skyline
from .houses import paint_building, paint_fence, paint_wall
from .light import Air, Light
from .painter import Painter
from .people import paint_cycle, paint_person
from .shapes import flat
from .things import Building, Cycle, Fence, Lamp, Person, Plant, Sign, Signal, Thing, Vehicle, Wall, World, moved
from .vehicles import paint_vehicle
from .weather import finish

VIEW_M = 115.0
"""Nothing further away is painted, save the skyline."""
THIN_M = 62.0
"""Poles, signs, people and two-wheelers further away would be thinner than two pixels."""
PAINTERS: dict[type[Thing], Callable[[Painter, Any], None]] = {
    Building: paint_building,
    Cycle: paint_cycle,
    Fence: paint_fence,
    Lamp: paint_lamp,
    Person: paint_person,
    Plant: paint_plant,
    Sign: paint_sign,
    Signal: paint_signal,
    Vehicle: paint_vehicle,
    Wall: paint_wall,
}
"""How each kind of thing is painted."""
CLOSE_M = 2.5
"""Flat figures closer than this would fill the picture; we would have passed or run into them."""
OVERHANG_M = 4.0
"""How far crowns and arms reach beyond the foot."""
THIN = (Cycle, Lamp, Person, Sign, Signal)


@dataclasses.dataclass(frozen=True)
class Hood:
    """Our own car at the lower edge of the picture, unlabelled; fractions of rows and columns."""

    height: float
    inset: float
    color: tuple[int, int, int]


def paint_world(
    world: World,
    camera: Camera,
    light: Light,
    air: Air,
    dice: Dice,
    hood: Hood | None = None,
    seconds: float = 0.0,
) -> Painter:
    """Paint the world as it is after `seconds`; `dice` decides what no two frames share, rain and noise."""
    painter = Painter(camera, light, air)
    things = visible([moved(thing, seconds) for thing in world.things], camera)
    paint_sky(painter)
    paint_skyline(painter, world)
    paint_ground(painter, world)
    paint_shadows(painter, things)
    paint_headlights(painter)
    for i in painting_order(things, camera):
        PAINTERS[type(things[i])](painter, things[i])
    finish(painter, dice)
    if hood:
        _paint_hood(painter, hood)
    return painter


def visible(things: Sequence[Thing], camera: Camera) -> list[Thing]:
    """Those in front of the camera and near enough to matter."""

    def matters(thing: Thing) -> bool:
        if isinstance(thing, THIN):
            return CLOSE_M < camera.depth(thing.z) < THIN_M
        return camera.depth(thing.far) > NEAR_M and camera.depth(thing.near) < VIEW_M

    return [thing for thing in things if matters(thing) and _in_view(thing, camera)]


def _in_view(thing: Thing, camera: Camera) -> bool:
    """Whether its ground rectangle, widened by what may overhang, is between the left and right edge."""
    columns = camera.project(flat(thing.left - OVERHANG_M, thing.right + OVERHANG_M, thing.near, thing.far))[:, 0]
    return bool(columns.max() > 0 and columns.min() < camera.size[1])


def painting_order(things: Sequence[Thing], camera: Camera) -> list[int]:
    """Indices of `things`, each after all that it may hide.

    One box hides a part of another if some point of it is both nearer along the road and nearer across it, on the
    same side of the camera. Sorting by distance alone would put a cyclist beside a long bus behind it.
    """
    hides = _may_hide(things, camera)
    far = np.array([thing.z for thing in things])
    behind_me = hides.sum(axis=1)
    order: list[int] = []
    waiting = np.ones(len(things), bool)
    while waiting.any():
        free = waiting & (behind_me == 0)
        candidates = np.flatnonzero(free if free.any() else waiting)
        chosen = int(candidates[np.argmax(far[candidates])])
        order.append(chosen)
        waiting[chosen] = False
        behind_me -= hides[:, chosen]
    return order


def _may_hide(things: Sequence[Thing], camera: Camera) -> npt.NDArray[np.int64]:
    """1 at (i, j) where `things[i]` may hide a part of `things[j]`."""
    left, right, near, far = (
        np.array([getattr(thing, name) for thing in things]) for name in ("left", "right", "near", "far")
    )
    hides = np.zeros((len(things), len(things)), bool)
    for inner, outer in ((left - camera.x, right - camera.x), (camera.x - right, camera.x - left)):
        inner = np.maximum(inner, 0)
        shares_side = (outer[:, None] > 0) & (outer[None] > 0)
        hides |= shares_side & (inner[:, None] < outer[None]) & (near[:, None] < far[None])
    middle = (near + far) / 2
    closer = (middle[:, None] < middle[None]) | (
        (middle[:, None] == middle[None]) & (np.arange(len(things))[:, None] < np.arange(len(things)))
    )
    return np.asarray(hides & (~hides.T | closer), np.int64)


def _paint_hood(painter: Painter, hood: Hood) -> None:
    rows, columns = painter.camera.size
    across = np.abs(np.linspace(-1, 1, columns)) / (1 - hood.inset)
    edge = rows * (1 - hood.height * (1 - across * across * across * across))
    depth = np.arange(rows)[:, None] + 0.5 - edge[None]
    inside = (depth > 0) & (across < 1)[None]
    shine = np.clip(depth / (rows * hood.height), 0, 1)[inside][:, None]
    color = np.array(painter.tint(hood.color, 0.0), np.float64)
    painter.frame[inside] = (color * (1.25 - 0.6 * shine)).clip(0, 255).astype(np.uint8)
    painter.labels[inside] = IGNORE
