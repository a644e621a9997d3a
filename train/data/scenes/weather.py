"""What the air, the sun and the camera's sensor do to a finished picture. Labels stay as they are."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from roadseg.runtime import Size

from .dice import Dice
from .ground import grain
from .painter import LABELS, Glow, Painter

GLOW_SCALE = 4
"""Glows are soft, so they are drawn at a fraction of the size."""
WET = 0.42
"""Share of a wet road's colour that is a reflection."""
ROUGH = {
    "building": 0.07,
    "wall": 0.12,
    "vegetation": 0.2,
    "fence": 0.08,
    "person": 0.08,
    "rider": 0.08,
    "truck": 0.04,
}
"""Contrast of the surface of some classes."""


def finish(painter: Painter, dice: Dice) -> None:
    """Reflections, glow, precipitation, then lens and sensor."""
    glows = painter.shining()
    _roughen(painter)
    if painter.air.weather == "rain":
        _reflect(painter)
    _add_glow(painter, glows)
    if painter.air.weather == "rain":
        _add_streaks(painter, dice, 130, 0.05)
    if painter.air.weather == "snow":
        _add_flakes(painter, dice, 200)
    _expose(painter, dice)


def _roughen(painter: Painter) -> None:
    """Unevenness of plaster, stone, leaves and cloth."""
    strength = np.zeros(256, np.float32)
    for name, contrast in ROUGH.items():
        strength[LABELS[name]] = contrast * 256
    rows, columns = painter.camera.size
    shift = int(painter.camera.yaw * painter.camera.focal_px) + 4096
    texture = grain()[np.arange(rows)[:, None] * 256 // rows & 255, (np.arange(columns)[None] + shift) & 255]
    factor = (texture * strength[painter.labels]).astype(np.int32) + 256
    rough = painter.frame.astype(np.int32) * factor[..., None] >> 8
    painter.frame[:] = np.minimum(rough, 255)


def _reflect(painter: Painter) -> None:
    """A wet road mirrors what stands above it."""
    rows = painter.camera.size[0]
    first = int(painter.camera.horizon_px) + 1
    mirrored = np.clip(2 * first - np.arange(first, rows), 0, rows - 1)
    image = cv2.blur(painter.frame[mirrored], (3, 2 * (rows // 64) + 3)).astype(np.int32)
    wet = np.isin(painter.labels[first:], (LABELS["road"], LABELS["sidewalk"]))[..., None]
    below = painter.frame[first:].astype(np.int32)
    share = np.where(wet, int(256 * WET), 0)
    painter.frame[first:] = below + ((image - below * 5 // 8 - below // 4) * share >> 8)


def _add_glow(painter: Painter, glows: list[Glow]) -> None:
    """Light that lamps spread in the air and the lens."""
    if not glows:
        return
    rows, columns = painter.camera.size
    veil = np.zeros((rows // GLOW_SCALE + 1, columns // GLOW_SCALE + 1, 3), np.uint8)
    strength = 0.62 if painter.light.lamps else 0.3
    for glow in glows:
        centre = glow.column // GLOW_SCALE, glow.row // GLOW_SCALE
        radius = min(int(glow.radius / GLOW_SCALE * 0.7) + 1, rows // 40)
        cv2.circle(veil, centre, radius, [int(c * strength) for c in glow.color], cv2.FILLED)
    kernel = rows // 64 * 2 + 3
    soft = cv2.blur(cv2.blur(veil, (kernel, kernel)), (kernel, kernel))
    wide = np.repeat(np.repeat(soft, GLOW_SCALE, 0), GLOW_SCALE, 1)[:rows, :columns]
    wide = cv2.blur(wide, (GLOW_SCALE + 1, GLOW_SCALE + 1))
    painter.frame[:] = cv2.add(painter.frame, wide)


def _add_streaks(painter: Painter, dice: Dice, count: int, length: float) -> None:
    rows, columns = painter.camera.size
    streaks = np.zeros((rows, columns), np.uint8)
    starts = dice.generator.integers((0, -rows // 10), (columns, rows), (count, 2))
    for x, y in starts.tolist():
        cv2.line(streaks, (x, y), (x + int(0.2 * length * rows), y + int(length * rows)), 46, 1)
    painter.frame[:] = cv2.add(painter.frame, cv2.merge([streaks] * 3))


def _add_flakes(painter: Painter, dice: Dice, count: int) -> None:
    rows, columns = painter.camera.size
    flakes = np.zeros((rows, columns), np.uint8)
    places = dice.generator.integers((0, 0, 0), (columns, rows, 3), (count, 3))
    for x, y, size in places.tolist():
        cv2.circle(flakes, (x, y), size * rows // 512 + rows // 256, 92, cv2.FILLED)
    soft = cv2.blur(flakes, (3, 3))
    painter.frame[:] = cv2.add(painter.frame, cv2.merge([soft] * 3))


@lru_cache(maxsize=4)
def _corners(size: Size) -> npt.NDArray[np.float32]:
    """0 in the middle of the picture, 1 in its corners; `(H, W, 1)`."""
    rows = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, size[1], dtype=np.float32)[None]
    return np.asarray((rows * rows + columns * columns)[..., None] / 2, np.float32)


def _expose(painter: Painter, dice: Dice) -> None:
    """Exposure, flare of a low sun, vignette and sensor noise."""
    air, size = painter.air, painter.camera.size
    gain = np.float32(air.exposure) * (1 - np.float32(air.vignette) * _corners(size))
    veil = np.float32(air.flare * 70) * np.array((1.0, 0.85, 0.6), np.float32)
    side = np.linspace(0, 1, size[1], dtype=np.float32)[None, :, None]
    bleach = veil * (side if painter.light.sun < 0 else 1 - side)
    noise = dice.generator.integers(-air.noise, air.noise + 1, (*size, 3), dtype=np.int16)
    exposed = painter.frame * gain + bleach + noise
    painter.frame[:] = np.clip(exposed, 0, 255).astype(np.uint8)
