"""Outlines and blocks: the geometry that all objects are made of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .camera import NEAR_M, Camera
from .dice import Dice
from .things import Thing

Points = npt.NDArray[np.float64]
"""World points, metres: `(K, 3)`, or `(M, K, 3)` for M polygons."""
Rect = tuple[float, float, float, float]
"""Left, bottom, right, top, as fractions of a face."""
HALF_ROOT_3 = 0.8660254037844386
CIRCLE = np.array(
    [
        (1, 0), (HALF_ROOT_3, 0.5), (0.5, HALF_ROOT_3), (0, 1), (-0.5, HALF_ROOT_3), (-HALF_ROOT_3, 0.5),
        (-1, 0), (-HALF_ROOT_3, -0.5), (-0.5, -HALF_ROOT_3), (0, -1), (0.5, -HALF_ROOT_3), (HALF_ROOT_3, -0.5),
    ]
)  # fmt: skip
"""A dodecagon in the unit circle, `(12, 2)`."""
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
TRIANGLE = np.array([(-1, -0.75), (1, -0.75), (0, 1.0)])
BOARD = SQUARE * (1.7, 0.9)


def _ragged_circles() -> npt.NDArray[np.float64]:
    dice = Dice(7)
    factors = np.array([dice.between(0.78, 1.18) for _ in range(8 * len(CIRCLE))])
    return np.asarray(CIRCLE * factors.reshape(8, len(CIRCLE), 1))


RAGGED = _ragged_circles()
"""Outlines of clumps of leaves, `(8, 12, 2)`."""


def upright(outline: npt.NDArray[np.float64], x: float, y: float, z: float, scale: float = 1.0) -> Points:
    """Stand a flat outline `(K, 2)` up across the road, its origin at (x, y, z)."""
    points = np.empty((len(outline), 3))
    points[:, 0] = outline[:, 0] * scale + x
    points[:, 1] = outline[:, 1] * scale + y
    points[:, 2] = z
    return points


def sideways(outline: npt.NDArray[np.float64], x: float, y: float, z: float, scale: float = 1.0) -> Points:
    """Stand a flat outline `(K, 2)` up along the road: its first coordinate runs along z."""
    return upright(outline, z, y, x, scale)[:, ::-1]


def bar(x0: float, y0: float, x1: float, y1: float, width: float, z: float) -> Points:
    """A thick line across the road from (x0, y0) to (x1, y1)."""
    dx, dy = x1 - x0, y1 - y0
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    px, py = -dy / length * width / 2, dx / length * width / 2
    return np.array([(x0 + px, y0 + py, z), (x1 + px, y1 + py, z), (x1 - px, y1 - py, z), (x0 - px, y0 - py, z)])


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Points:
    """A rectangle lying on the ground."""
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def strip(x0: float, x1: float, knots: Sequence[float], y: float = 0.0) -> Points:
    """A strip along the road, bending with it: its quads `(M, 4, 3)`."""
    return np.array(
        [((x0, y, near), (x1, y, near), (x1, y, far), (x0, y, far)) for near, far in itertools.pairwise(knots)]
    )


def panels(face: Points, rects: Sequence[Rect]) -> Points:
    """Parts `(M, 4, 3)` of a four-cornered face; windows, doors, stripes."""
    corners = np.array(rects)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    u, v = corners[..., :1], corners[..., 1:]
    low = face[0] + (face[1] - face[0]) * u
    high = face[3] + (face[2] - face[3]) * u
    return np.asarray(low + (high - low) * v)


def grid(columns: int, rows: int, rect: Rect = (0, 0, 1, 1), fill: tuple[float, float] = (0.6, 0.6)) -> list[Rect]:
    """`columns` x `rows` panels spread over `rect`, each taking `fill` of its cell."""
    left, bottom, right, top = rect
    wide, high = (right - left) / columns, (top - bottom) / rows
    pad_u, pad_v = wide * (1 - fill[0]) / 2, high * (1 - fill[1]) / 2
    return [
        (
            left + c * wide + pad_u,
            bottom + r * high + pad_v,
            left + (c + 1) * wide - pad_u,
            bottom + (r + 1) * high - pad_v,
        )
        for r in range(rows)
        for c in range(columns)
    ]


@dataclasses.dataclass(frozen=True)
class Block:
    """A box along the road whose top may be smaller than its bottom."""

    x0: float
    x1: float
    y0: float
    y1: float
    z0: float
    z1: float
    taper_x: float = 0.0
    """How far the top is drawn in on the left and on the right."""
    taper_near: float = 0.0
    """How far the top is drawn in at the near end."""
    taper_far: float = 0.0

    @staticmethod
    def of(thing: Thing, y0: float = 0.0) -> Block:
        """The box a thing fills."""
        return Block(thing.left, thing.right, y0, thing.height, thing.near, thing.far)

    def faces(self, camera: Camera) -> Faces:
        """Those of its faces that the camera can see."""
        side = self.side(camera) if camera.depth(self.z1) > NEAR_M else None
        near = self.end() if camera.depth(self.z0) > NEAR_M else None
        top = self.top() if camera.height > self.y1 and camera.depth(self.z1) > NEAR_M else None
        return Faces(side, near, top, -1 if camera.x < self.x0 else 1)

    def side(self, camera: Camera) -> Points | None:
        """Its left or right face; u runs away from the camera."""
        if self.x0 <= camera.x <= self.x1:
            return None
        x, lean = (self.x0, self.taper_x) if camera.x < self.x0 else (self.x1, -self.taper_x)
        return np.array(
            [
                (x, self.y0, self.z0),
                (x, self.y0, self.z1),
                (x + lean, self.y1, self.z1 - self.taper_far),
                (x + lean, self.y1, self.z0 + self.taper_near),
            ]
        )

    def end(self) -> Points:
        """Its face towards the camera; u runs to the right."""
        z, lean = self.z0 + self.taper_near, self.taper_x
        return np.array(
            [
                (self.x0, self.y0, self.z0),
                (self.x1, self.y0, self.z0),
                (self.x1 - lean, self.y1, z),
                (self.x0 + lean, self.y1, z),
            ]
        )

    def top(self) -> Points:
        lean = self.taper_x
        return flat(self.x0 + lean, self.x1 - lean, self.z0 + self.taper_near, self.z1 - self.taper_far, self.y1)


@dataclasses.dataclass(frozen=True)
class Faces:
    """The visible faces of a block, `(4, 3)` each: bottom left, bottom right, top right, top left."""

    side: Points | None
    near: Points | None
    top: Points | None
    looks: int
    """Where the side face looks: -1 to the left, 1 to the right."""
