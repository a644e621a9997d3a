"""Puts polygons of the world into a frame and, with the same outline, into its labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from roadseg.runtime import CITYSCAPES, IGNORE

from .camera import NEAR_M, POINTS_PER_PX, Camera
from .dice import Dice
from .light import Air, Light
from .shapes import CIRCLE, Block, Faces, Points, upright
from .things import Color

SHIFT = POINTS_PER_PX.bit_length() - 1
LABELS = {name: label for label, name in enumerate(CITYSCAPES.classes)}
"""Train id by class name."""


@dataclasses.dataclass(frozen=True)
class Glow:
    """A shining point in the picture."""

    column: int
    row: int
    radius: float
    """In pixels."""
    color: Color
    painted: tuple[int, ...]
    """What the frame shows there; something else later means that the point is hidden."""


class Painter:
    """A frame and its labels in the making; whatever is painted later is nearer."""

    def __init__(self, camera: Camera, light: Light, air: Air) -> None:
        self.camera = camera
        self.light = light
        self.air = air
        self.frame = np.zeros((*camera.size, 3), np.uint8)
        self.labels = np.full(camera.size, IGNORE, np.uint8)
        self.glows: list[Glow] = []

    def tint(self, color: Color, depth: float, shade: float = 1.0, glowing: bool = False) -> tuple[int, int, int]:
        """A colour as it looks in this light and at this distance."""
        clear = self.air.reach / (self.air.reach + max(depth, 0.0))
        red, green, blue = (1.0, 1.0, 1.0) if glowing else self.light.ambient
        bright, (hr, hg, hb) = shade * clear, self.air.haze
        return (
            min(255, int(color[0] * red * bright + hr * (1 - clear))),
            min(255, int(color[1] * green * bright + hg * (1 - clear))),
            min(255, int(color[2] * blue * bright + hb * (1 - clear))),
        )

    def fill(
        self,
        points: Points,
        color: Color,
        label: str | None,
        shade: float | Sequence[float] = 1.0,
        *,
        glowing: bool = False,
    ) -> None:
        """Paint convex polygons `(K, 3)` or `(M, K, 3)`; without a label they belong to what is under them.

        `shade` is their brightness, together or one by one.
        """
        polygons = points if points.ndim == 3 else points[None]
        depths = ((polygons[:, 0, 2] + polygons[:, -2, 2]) / 2 - self.camera.z).tolist()
        shades = [shade] * len(depths) if isinstance(shade, float) else shade
        for outline, depth, one in zip(self.outlines(polygons), depths, shades, strict=True):
            tinted = self.tint(color, depth, one, glowing)
            cv2.fillConvexPoly(self.frame, outline, tinted, cv2.LINE_AA, SHIFT)
            if label:
                cv2.fillConvexPoly(self.labels, outline, LABELS[label], cv2.LINE_8, SHIFT)

    def cover(self, points: Points, label: str) -> None:
        """Label a convex polygon `(K, 3)` without painting it."""
        cv2.fillConvexPoly(self.labels, self.outlines(points), LABELS[label], cv2.LINE_8, SHIFT)

    def outlines(self, points: Points) -> npt.NDArray[np.int32]:
        """World points in 1/POINTS_PER_PX pixels, for OpenCV, to which whole numbers are the middles of pixels."""
        pixels = np.rint(self.camera.project(points) * POINTS_PER_PX).astype(np.int32)
        return np.asarray(pixels - POINTS_PER_PX // 2, np.int32)

    def block(self, block: Block, color: Color, label: str | None, shade: float = 1.0) -> Faces:
        """Paint the visible faces of a block, each in its own light, and return them for details."""
        faces = block.faces(self.camera)
        if faces.top is not None:
            self.fill(faces.top, color, label, shade * 1.12)
        if faces.side is not None:
            self.fill(faces.side, color, label, shade * self.side_shade(faces))
        if faces.near is not None:
            self.fill(faces.near, color, label, shade)
        return faces

    def side_shade(self, faces: Faces) -> float:
        """Brightness of a block's side face."""
        return 0.9 - faces.looks * self.light.sun

    def disc(
        self,
        x: float,
        y: float,
        z: float,
        radius: float,
        color: Color,
        label: str | None,
        *,
        glowing: bool = False,
    ) -> None:
        """Paint a disc that faces the camera."""
        self.fill(upright(CIRCLE, x, y, z, radius), color, label, glowing=glowing)

    def glow(self, x: float, y: float, z: float, radius: float, color: Color) -> None:
        """Let a point shine into its surroundings; `radius` in metres."""
        rows, columns = self.camera.size
        column, row = (int(place) for place in self.camera.project(np.array((x, y, z))))
        if self.camera.depth(z) > NEAR_M and 0 <= row < rows and 0 <= column < columns:
            painted = tuple(self.frame[row, column].tolist())
            self.glows.append(Glow(column, row, radius * self.pixels_per_metre(z), color, painted))

    def shining(self) -> list[Glow]:
        """The glows that nothing has been painted over."""
        return [glow for glow in self.glows if tuple(self.frame[glow.row, glow.column].tolist()) == glow.painted]

    def pixels_per_metre(self, z: float) -> float:
        """How large a metre across the road appears at `z`."""
        return self.camera.focal_px / max(self.camera.depth(z), NEAR_M)


def noise_tile(seed: int, side: int, cells: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Seamless noise `(side, side)` from -1 to 1: the mean of smoothly enlarged grids of so many cells."""
    dice = Dice(seed)
    total: npt.NDArray[np.float32] = np.zeros((side, side), np.float32)
    for count in cells:
        corners = dice.generator.integers(-128, 129, (count, count)).astype(np.float32) / np.float32(128)
        total += _enlarged(_enlarged(corners, side).T, side).T
    return np.asarray(total / np.float32(len(cells)), np.float32)


def _enlarged(values: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """`rows` rows, interpolated between those of `values`, the last of which meets the first."""
    place = np.arange(rows, dtype=np.float32) * np.float32(len(values) / rows)
    low = place.astype(np.int64)
    share = (place - low)[:, None]
    share = share * share * (3 - 2 * share)
    return np.asarray(values[low] * (1 - share) + values[(low + 1) % len(values)] * share, np.float32)
