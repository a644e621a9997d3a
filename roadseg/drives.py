"""Video sources by name, the generated drives among them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from roadseg.runtime import UsageError
from roadseg.runtime.video import Frame, Source, open_source

PREFIX = "scenes:"


class GeneratedDrive:
    """A drive through one generated world, as a video source."""

    dropped = 0

    def __init__(self, frames: int, seed: int) -> None:
        from roadseg.train.data.scenes.dataset import FPS

        self.fps = Fraction(FPS)
        self.count: int | None = frames
        self.seed = seed

    def __iter__(self) -> Iterator[Frame]:
        from roadseg.train.data.scenes import scene_video

        return (sample.frame for sample in scene_video(self.seed, self.count or 0))


def open_drive(source: str) -> Source:
    """A video source: what `open_source` takes, or "scenes:frames=96,seed=1" for a generated drive.

    Raises:
        UsageError: if a drive's option is unknown or not a number.
        DataError: if there is no such video.
    """
    if not source.startswith(PREFIX):
        return open_source(source)
    options = {"frames": 96, "seed": 0}
    for part in filter(None, source.removeprefix(PREFIX).split(",")):
        name, _, value = part.partition("=")
        if name not in options or not value.isdecimal():
            raise UsageError(
                f"a generated drive has the options frames and seed, e.g. frames=96,seed=1, got {part!r}."
            )
        options[name] = int(value)
    return GeneratedDrive(**options)
