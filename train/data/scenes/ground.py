"""Sky, skyline, road, sidewalks, verges, markings, and what light and shadow do to the ground."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from .painter import LABELS, SHIFT, Painter, noise_tile
from .shapes import Points, flat, strip
from .things import Building, Plant, Side, Street, Thing, Vehicle, World

DEPTHS = (0.0, 4.0, 9.0, 16.0, 26.0, 40.0, 60.0, 90.0, 140.0, 220.0, 400.0)
"""Where strips of ground have corners, in metres from the camera."""
WHITE = (225, 225, 218)
SNOW = (222, 226, 234)
KERB = (150, 148, 142)
SHADOW_M = 60.0
"""Shadows further away cannot be told from the ground."""
STEEL = (120, 116, 112)
TEXTURE_PER_M = 14.0
"""Pixels of the noise tile per metre of ground."""


@lru_cache(maxsize=1)
def grain() -> npt.NDArray[np.float32]:
    """Noise of the ground."""
    return noise_tile(1, 256, (8, 64, 256))


@lru_cache(maxsize=1)
def clouds() -> npt.NDArray[np.float32]:
    """Noise of the sky."""
    return noise_tile(2, 512, (4, 8, 16, 32, 64))


def paint_sky(painter: Painter) -> None:
    """A gradient with clouds, down to the horizon."""
    camera, light = painter.camera, painter.light
    rows, columns = max(int(camera.horizon_px) + 2, 1), camera.size[1]
    painter.labels[:] = LABELS["sky"]
    height = np.arange(rows, dtype=np.float32)[:, None] / np.float32(max(camera.horizon_px, 1))
    share = np.minimum(height, 1)[..., None]
    high, low = np.array(light.sky_high, np.float32), np.array(light.sky_low, np.float32)
    sky = high + (low - high) * share
    flat_row = (np.minimum(height[:, 0], 1) * 260).astype(np.int64)
    turn = int((camera.yaw + 10) * 300)
    column = (np.arange(columns) * 400 // columns + turn) % 512
    cover = clouds()[flat_row[:, None], column[None]] + np.float32(light.clouds - 0.62)
    cover = np.clip(cover * np.float32(3.5), 0, np.float32(0.75))[..., None] * (1 - share * np.float32(0.5))
    bright = low + (np.float32(235 if not light.lamps else 62) - low) * np.float32(0.5)
    sky = sky + (bright - sky) * cover
    fog = np.float32(25 / (25 + painter.air.reach)) * (np.float32(0.45) + np.float32(0.55) * share)
    sky = sky + (np.array(painter.air.haze, np.float32) - sky) * fog
    painter.frame[:rows] = sky.astype(np.uint8)


def paint_skyline(painter: Painter, world: World) -> None:
    """Hills, woods and tower blocks where the street ends."""
    z = painter.camera.z + 240.0
    for i, (direction, half, height) in enumerate(world.skyline):
        middle = painter.camera.x + (direction - painter.camera.bend * 240.0) * 240.0
        wide, high = half * 240.0, height * 240.0
        if i % 3:
            hill = [(-1.0, 0.0), (-0.8, 0.5), (-0.45, 0.85), (0.0, 1.0), (0.4, 0.9), (0.85, 0.4), (1.0, 0.0)]
            points = np.array([(middle + wide * u, high * v - 1.0, z) for u, v in hill])
            painter.fill(points, (74, 96, 66), "vegetation", 0.8 + 0.1 * (i % 4))
        else:
            box = [(-0.3, 0.0), (0.3, 0.0), (0.3, 1.5), (-0.3, 1.5)]
            points = np.array([(middle + wide * u, high * v - 1.0, z) for u, v in box])
            painter.fill(points, (128, 122, 120), "building", 0.8 + 0.1 * (i % 4))


def paint_ground(painter: Painter, world: World) -> None:
    """Everything flat, from the edges inwards, then its texture."""
    street, snow = world.street, painter.air.weather == "snow"
    knots = [painter.camera.z + depth for depth in DEPTHS]
    grass = SNOW if snow else street.grass
    painter.fill(strip(-160, 160, knots), grass, "terrain", 0.92)
    for sign, side in ((-1, street.left), (1, street.right)):
        _paint_side(painter, street, side, sign, knots, snow)
    painter.fill(strip(-street.left.road, street.right.road, knots), street.asphalt, "road", 1.1 if snow else 1.0)
    for x, z, width, length, tone in street.patches:
        painter.fill(flat(x - width / 2, x + width / 2, z, z + length), street.asphalt, None, tone)
    _paint_markings(painter, street, knots)
    if street.track is not None:
        _paint_track(painter, street.track, street.ballast, knots)
    _texture(painter)


def _paint_side(painter: Painter, street: Street, side: Side, sign: int, knots: list[float], snow: bool) -> None:
    def between(inner: float, outer: float) -> Points:
        return strip(min(sign * inner, sign * outer), max(sign * inner, sign * outer), knots)

    paving = SNOW if snow else street.paving
    painter.fill(between(side.verge, side.sidewalk), paving, "sidewalk", 0.86 if snow else 1.0)
    if side.verge > side.road:
        painter.fill(between(side.road, side.verge), SNOW if snow else street.grass, "terrain")
    painter.fill(between(side.road, side.road + 0.22), KERB, "sidewalk")


def _paint_markings(painter: Painter, street: Street, knots: list[float]) -> None:
    z, half = painter.camera.z, street.lane_width / 2
    for i, lane in enumerate(street.lanes[:-1]):
        x = lane + half
        if i + 1 == street.oncoming and len(street.lanes) > 2:
            painter.fill(strip(x - 0.22, x - 0.08, knots[:8]), WHITE, None, 0.95)
            painter.fill(strip(x + 0.08, x + 0.22, knots[:8]), WHITE, None, 0.95)
        else:
            first = z - z % 9.0
            dashes = [flat(x - 0.08, x + 0.08, first + 9.0 * k, first + 9.0 * k + 3.5) for k in range(9)]
            painter.fill(np.array(dashes), WHITE, None, 0.95)
    for x in (street.lanes[0] - half + 0.1, street.lanes[-1] + half - 0.1):
        painter.fill(strip(x - 0.07, x + 0.07, knots[:8]), WHITE, None, 0.9)
    for zebra in street.zebras:
        if 0 < painter.camera.depth(zebra) < 60:
            _paint_zebra(painter, street, zebra)


def _paint_zebra(painter: Painter, street: Street, z: float) -> None:
    left, right = -street.left.road + 0.3, street.right.road - 0.3
    bars = [flat(left + 1.0 * k, left + 1.0 * k + 0.5, z, z + 3.2) for k in range(int(right - left))]
    painter.fill(np.stack(bars), WHITE, None)
    painter.fill(flat(street.lanes[street.oncoming] - street.lane_width / 2, right, z - 1.6, z - 1.2), WHITE, None)


def _paint_track(painter: Painter, x: float, ballast: bool, knots: list[float]) -> None:
    if ballast:
        painter.fill(strip(x - 1.6, x + 1.6, knots), (128, 112, 98), "terrain", 0.85)
    for rail in (x - 0.72, x + 0.72):
        painter.fill(strip(rail - 0.06, rail + 0.06, knots[:9]), STEEL, None, 0.55)
        painter.fill(strip(rail - 0.02, rail + 0.03, knots[:7]), (190, 190, 192), None)


def _texture(painter: Painter) -> None:
    """Roughness of asphalt, paving and grass, fixed to the ground."""
    x, depth = painter.camera.ground()
    first = painter.camera.size[0] - len(depth)
    row = ((depth + painter.camera.z) * TEXTURE_PER_M).astype(np.int64) & 255
    column = (x * TEXTURE_PER_M + 65536.0).astype(np.int64) & 255
    strength = np.zeros(256, np.float32)
    strength[[LABELS["road"], LABELS["sidewalk"], LABELS["terrain"]]] = (0.13, 0.12, 0.34)
    fade = (np.float32(30) / (np.float32(30) + depth.astype(np.float32))) * np.float32(256)
    factor = (grain()[row, column] * strength[painter.labels[first:]] * fade).astype(np.int32) + 256
    ground = painter.frame[first:].astype(np.int32) * factor[..., None] >> 8
    painter.frame[first:] = np.clip(ground, 0, 255)


def paint_shadows(painter: Painter, things: Iterable[Thing]) -> None:
    """Darken the ground under and beside things, and light it up in front of headlights and under lamps."""
    rows, columns = painter.camera.size
    dark = np.zeros((rows, columns), np.uint8)
    cast = painter.light.contrast
    near = [thing for thing in things if painter.camera.depth(thing.near) < SHADOW_M]
    for thing in near:
        _fill_mask(painter, dark, _under(thing), 150 if isinstance(thing, Vehicle) else 90)
    if not painter.light.lamps and painter.air.weather == "clear" and cast > 0.3:
        for thing in near:
            _fill_mask(painter, dark, _cast(thing, painter.light.sun), int(255 * cast))
    blur = 2 * (rows // 160) + 1
    first = max(int(painter.camera.horizon_px), 0)
    share = 256 - cv2.blur(dark, (blur, blur))[first:].astype(np.int32)
    painter.frame[first:] = painter.frame[first:].astype(np.int32) * share[..., None] >> 8


def _fill_mask(painter: Painter, mask: npt.NDArray[np.uint8], points: Points, value: int) -> None:
    cv2.fillConvexPoly(mask, painter.outlines(points), value, cv2.LINE_8, SHIFT)


def _under(thing: Thing) -> Points:
    if isinstance(thing, Building):
        return flat(thing.left - 0.5, thing.right + 0.5, thing.near, thing.far)
    return flat(thing.left - 0.1, thing.right + 0.1, thing.near - 0.25, thing.far)


def _cast(thing: Thing, sun: float) -> Points:
    """Where a thing's shadow falls: away from the sun, as long as the thing is high."""
    height = min(thing.height, 9.0) * (0.8 if isinstance(thing, Building | Plant) else 0.7)
    reach = height if sun > 0 else -height
    inner, outer = (thing.left, thing.right + reach) if reach > 0 else (thing.right, thing.left + reach)
    lean = 0.25 * height
    return np.array(
        [
            (inner, 0.0, thing.near),
            (outer, 0.0, thing.near + lean),
            (outer, 0.0, thing.far + lean),
            (inner, 0.0, thing.far),
        ]
    )


def paint_headlights(painter: Painter) -> None:
    """Our own headlights on the road at night."""
    if not painter.light.lamps:
        return
    x, depth = painter.camera.ground()
    first = painter.camera.size[0] - len(depth)
    across = (x - painter.camera.x) / (1.6 + 0.16 * depth)
    cone = (1 / (1 + across * across * across * across)) * (depth / (depth + 3)) * (22 / (22 + depth))
    factor = (256 + cone * (310 if painter.light.name == "night" else 90)).astype(np.int32)
    lit = painter.frame[first:].astype(np.int32) * factor[..., None] >> 8
    painter.frame[first:] = np.minimum(lit, 255)
