"""Generated scenes as a data set and as a drive."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from functools import cached_property

from roadseg.runtime import CITYSCAPES, Key, LabelSet, Sample, Size, UsageError, parse_size, sha256_bytes

from .camera import Camera
from .dice import Dice
from .light import Air, Light, choose_air, choose_light
from .painting import Hood, paint_world
from .planning import Drive, plan_world
from .things import Street

COUNTS = {"train": 2000, "val": 100}
"""Frames of each split if not said otherwise."""
SIZE = (256, 512)
"""Rows and columns of a frame if not said otherwise."""
VERSION = 1
"""Goes up whenever the same seed gives other pixels."""
FPS = 12.0
"""Frames per second of a drive."""


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Independent scenes, painted when they are asked for; the same everywhere for the same seed and index."""

    split: str = "train"
    count: int | None = None
    """Frames; None takes the split's usual number."""
    size: Size = SIZE
    """Rows and columns of a frame; the scene itself does not depend on it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in COUNTS:
            raise UsageError(f"scenes have the splits {' and '.join(COUNTS)}, got {self.split!r}.")
        if self.seed < 0 or len(self) < 1:
            raise UsageError(f"scenes need a count of 1 or more and a seed of 0 or more, got {self.name!r}.")

    @classmethod
    def from_options(cls, text: str, split: str) -> Scenes:
        """Scenes as the command line writes them, e.g. "count=64,size=256x512,seed=3"; all are optional.

        Raises:
            UsageError: naming the option that is unknown or has a value that cannot be meant.
        """
        options = dict(_parse_option(part) for part in text.split(",") if part)
        size = parse_size(options.pop("size")) if "size" in options else SIZE
        numbers = {name: _parse_number(name, value) for name, value in options.items()}
        return cls(split, numbers.get("count"), size, numbers.get("seed", 0))

    @property
    def name(self) -> str:
        return f"scenes:count={len(self)},size={self.size[0]}x{self.size[1]},seed={self.seed}"

    @property
    def label_set(self) -> LabelSet:
        return CITYSCAPES

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        return tuple(Key(f"{self.split}_{i:06}", _group(*_plan_sky(self._dice(i)))) for i in range(len(self)))

    @property
    def fingerprint(self) -> str:
        return sha256_bytes(f"{self.name} {self.split} version {VERSION}".encode())

    def __len__(self) -> int:
        return COUNTS[self.split] if self.count is None else self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        dice = self._dice(index)
        light, air = _plan_sky(dice)
        world = plan_world(dice, Drive())
        camera = _plan_camera(dice, world.street, self.size)
        painter = paint_world(world, camera, light, air, dice, _plan_hood(dice))
        return Sample(Key(f"{self.split}_{index:06}", _group(light, air)), painter.frame, painter.labels)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def _dice(self, index: int) -> Dice:
        return Dice(self.seed, list(COUNTS).index(self.split), index)


def scene_video(seed: int, frames: int, size: Size = SIZE) -> Iterator[Sample]:
    """Drive through one world, with traffic, at FPS frames per second."""
    dice = Dice(seed, len(COUNTS))
    light, air = _plan_sky(dice)
    seconds, speed = frames / FPS, dice.between(5, 8)
    drive = Drive(seconds * speed, seconds, speed)
    world = plan_world(dice, drive)
    start = _plan_camera(dice, world.street, size)
    hood = _plan_hood(dice)
    for i in range(frames):
        camera = _drive_on(start, drive, i / FPS)
        painter = paint_world(world, camera, light, air, Dice(seed, len(COUNTS), i), hood, i / FPS)
        yield Sample(Key(f"drive{seed}_{i:06}", _group(light, air)), painter.frame, painter.labels)


def _parse_option(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    if name not in ("count", "size", "seed"):
        raise UsageError(
            f"scenes have the options count, size and seed, e.g. count=64,size=256x512,seed=3, got {part!r}."
        )
    return name, value


def _parse_number(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", value):
        raise UsageError(f"the option {name} of scenes is a whole number, got {value!r}.")
    return int(value)


def _group(light: Light, air: Air) -> str:
    return f"{light.name}_{air.weather}"


def _plan_sky(dice: Dice) -> tuple[Light, Air]:
    light = choose_light(dice)
    return light, choose_air(dice, light)


def _plan_camera(dice: Dice, street: Street, size: Size) -> Camera:
    return Camera(
        size,
        x=street.lanes[street.oncoming] + dice.between(-0.5, 0.5),
        height=dice.between(1.25, 1.9),
        z=0.0,
        focal=dice.between(0.72, 0.95),
        horizon=dice.between(0.38, 0.5),
        yaw=dice.between(-0.07, 0.07),
        bend=dice.between(0, 0.0012) * dice.sign() if dice.chance(0.6) else 0.0,
    )


def _plan_hood(dice: Dice) -> Hood | None:
    if not dice.chance(0.3):
        return None
    return Hood(
        dice.between(0.05, 0.11),
        dice.between(0.02, 0.15),
        dice.pick(((40, 42, 48), (150, 30, 34), (180, 182, 186))),
    )


def _drive_on(start: Camera, drive: Drive, seconds: float) -> Camera:
    """The camera after so long: further on, swaying a little, with the road turning slowly."""
    sway, turn = _swing(seconds / 3.1), _swing(seconds / 17.0 + 0.25)
    return dataclasses.replace(
        start,
        z=drive.speed * seconds,
        x=start.x + 0.15 * sway,
        yaw=start.yaw * 0.4 - 0.008 * sway,
        horizon=start.horizon + 0.003 * _swing(seconds / 0.8),
        bend=0.0009 * turn,
    )


def _swing(turns: float) -> float:
    """Back and forth between -1 and 1, once per turn, smooth without a sine."""
    part = turns % 1.0
    half = part * 2 if part < 0.5 else (part - 0.5) * 2
    wave = 4 * half * (1 - half)
    return wave if part < 0.5 else -wave
