"""A road scene as data: what stands, drives and walks where.

All lengths are in metres, x to the right of the road's middle, z along the road, y up; speeds are in m/s.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar

Color = tuple[int, int, int]
"""RGB, 0 to 255, in white light."""
CarShape = Literal["low", "estate", "van"]
SignShape = Literal["disc", "triangle", "square", "board"]
SignalState = Literal["red", "amber", "green"]
T = TypeVar("T", bound="Thing")


@dataclasses.dataclass(frozen=True)
class Thing:
    """Anything that stands on the ground, within a rectangle along the road."""

    x: float
    """Middle."""
    z: float
    """Middle."""
    width: float
    """Along x."""
    length: float
    """Along z."""
    height: float
    color: Color
    speed: float = dataclasses.field(default=0.0, kw_only=True)
    """Along z."""
    drift: float = dataclasses.field(default=0.0, kw_only=True)
    """Along x."""

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def near(self) -> float:
        return self.z - self.length / 2

    @property
    def far(self) -> float:
        return self.z + self.length / 2


def moved(thing: T, seconds: float) -> T:
    """Where `thing` is after so long."""
    if not thing.speed and not thing.drift:
        return thing
    return dataclasses.replace(thing, x=thing.x + thing.drift * seconds, z=thing.z + thing.speed * seconds)


@dataclasses.dataclass(frozen=True)
class Building(Thing):
    """A house whose front stands along the road."""

    floors: int
    bays: int
    """Windows beside each other."""
    window: Color
    roof: Color
    brick: bool
    shop: bool
    """The ground floor is a shop front."""
    gable: float
    """Height of a pitched roof above `height`; 0 for a flat one."""
    lit: int
    """Seed of which windows are lit at night."""


@dataclasses.dataclass(frozen=True)
class Wall(Thing):
    """A free-standing wall of stone, brick or concrete, or a noise barrier."""

    panels: int


@dataclasses.dataclass(frozen=True)
class Fence(Thing):
    """Posts, rails and pickets one can look through, or a guard rail."""

    rail: bool


@dataclasses.dataclass(frozen=True)
class Blob:
    """A clump of leaves, relative to the foot of its plant."""

    x: float
    y: float
    radius: float
    tone: float
    """Brightness."""
    jag: int
    """Which of the ragged outlines."""


@dataclasses.dataclass(frozen=True)
class Plant(Thing):
    """A tree (with a trunk), a bush or a hedge."""

    trunk: float
    """Height of the trunk; 0 for a bush."""
    blobs: tuple[Blob, ...]


@dataclasses.dataclass(frozen=True)
class Lamp(Thing):
    """A street lamp or a bare pole; width is the pole's."""

    arm: float
    """How far the lamp reaches, with its side as sign; 0 for a bare pole."""


@dataclasses.dataclass(frozen=True)
class Signal(Thing):
    """A traffic light on a pole."""

    state: SignalState
    arm: float
    """How far a second head hangs over the road, with its side as sign; 0 for none."""


@dataclasses.dataclass(frozen=True)
class Sign(Thing):
    """Traffic signs on a pole."""

    shape: SignShape
    rim: Color
    diameter: float
    second: bool
    """Another, square one hangs below."""


@dataclasses.dataclass(frozen=True)
class Person(Thing):
    """Somebody on foot."""

    trousers: Color
    skin: Color
    hair: Color
    stride: float
    """Phase of the step, 0 to 1."""


@dataclasses.dataclass(frozen=True)
class Cycle(Thing):
    """A bicycle or motorcycle, ridden or parked."""

    motor: bool
    rider: Person | None
    across: bool
    """Seen from its side, not from its end."""


@dataclasses.dataclass(frozen=True)
class Vehicle(Thing):
    """A car, truck, bus or tram."""

    kind: Literal["car", "truck", "bus", "train"]
    glass: Color
    trim: Color
    """Stripe, cab or second colour."""
    oncoming: bool
    """Shows its front."""
    braking: bool
    shape: CarShape
    """Of a car."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What lies beside the road, as distances of its outer edges from the road's middle."""

    road: float
    verge: float
    sidewalk: float
    front: float
    """Where houses, walls and fences stand."""


@dataclasses.dataclass(frozen=True)
class Street:
    """The ground."""

    left: Side
    right: Side
    lanes: tuple[float, ...]
    """Middles, from left to right."""
    lane_width: float
    oncoming: int
    """How many of the lanes, from the left, come towards us."""
    asphalt: Color
    paving: Color
    grass: Color
    zebras: tuple[float, ...]
    """Where people may cross."""
    track: float | None
    """Middle of a tram track."""
    ballast: bool
    """The track lies beside the road, on its own bed."""
    patches: tuple[tuple[float, float, float, float, float], ...]
    """Repairs: x, z, width, length, brightness."""


@dataclasses.dataclass(frozen=True)
class World:
    """A street with everything on it, at time 0."""

    street: Street
    things: tuple[Thing, ...]
    skyline: tuple[tuple[float, float, float], ...]
    """Far silhouettes: direction as tangent, half width as tangent, height as tangent."""
