"""Frames of drives on video, without labels: what calibration and parity without labels can take.

    PATH.mp4      or      PATH/[SPLIT/]*.mp4

Neighbouring frames are nearly the same, so that one in every half second is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from roadseg.runtime import CITYSCAPES, DataError, Key, LabelSet, Sample, sha256_bytes
from roadseg.runtime.video import VideoFile

EVERY_S = 0.5
"""Seconds between two frames."""
STRETCH_S = 10
"""Seconds of a drive that count as one group: images are chosen from all of them."""
SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a frame is."""

    key: Key
    clip: int
    """Index of the file."""
    frame: int
    """Number in it, from 0."""


class VideoDataset:
    """Frames of one video or several, decoded when they are asked for, fastest in rising order."""

    label_set: LabelSet = CITYSCAPES
    """Frames without labels have no classes of their own."""

    def __init__(self, name: str, split: str, paths: tuple[Path, ...]) -> None:
        self.name = name
        self.split = split
        self.paths = paths
        self.clips = tuple(VideoFile(path) for path in paths)
        self.places = tuple(place for i, clip in enumerate(self.clips) for place in places_in(i, clip))
        self._cursor: Cursor | None = None

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        return tuple(place.key for place in self.places)

    @cached_property
    def fingerprint(self) -> str:
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        return sha256_bytes(repr((self.name, self.split, states)).encode())

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        place = self.places[index]
        if self._cursor is None or not self._cursor.can_reach(place):
            self._cursor = Cursor(place.clip, self.clips[place.clip])
        return Sample(place.key, self._cursor.read(place.frame))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


class Cursor:
    """A video that is being read from its beginning."""

    def __init__(self, number: int, clip: VideoFile) -> None:
        self.number = number
        self.path = clip.path
        self.frames = iter(clip)
        self.next = 0
        """Number of the frame that comes next."""

    def can_reach(self, place: Place) -> bool:
        """Whether a frame lies ahead."""
        return place.clip == self.number and place.frame >= self.next

    def read(self, frame: int) -> npt.NDArray[np.uint8]:
        """The frame of a number, `(H, W, 3)` uint8 RGB; those before it are passed over.

        Raises:
            DataError: if the video is damaged, or shorter than it says.
        """
        for picture in self.frames:
            self.next += 1
            if self.next > frame:
                return picture
        raise DataError(f"{self.path} ends before frame {frame}, which it promises. Copy it again.")


def places_in(number: int, clip: VideoFile) -> Iterator[Place]:
    """The frames of a video that are taken.

    Raises:
        DataError: if it does not say how long it is.
    """
    if not clip.count:
        raise DataError(f"{clip.path} does not say how long it is. Write it anew, as MP4 for example.")
    for frame in range(0, clip.count, max(1, round(EVERY_S * float(clip.fps)))):
        stretch = int(frame / float(clip.fps) // STRETCH_S)
        yield Place(Key(f"{clip.path.stem}_{frame:06d}", f"{clip.path.stem} {stretch}"), number, frame)


def open_video(path: Path, split: str) -> VideoDataset:
    """The frames of a video, or of all videos in a folder, or in its subfolder `split` where there is one.

    Raises:
        DataError: if there is no video, two have the same name, or one cannot be read.
    """
    top = path / split if (path / split).is_dir() else path
    paths = (top,) if top.is_file() else videos_in(top)
    names = [file.stem for file in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{top} has two videos {twice!r} that differ in their suffix; rename one.")
    return VideoDataset(f"video:{path}", split, paths)


def videos_in(folder: Path) -> tuple[Path, ...]:
    """Videos in a folder, by name.

    Raises:
        DataError: if there are none.
    """
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise DataError(f"there is no video at {folder}; it takes a file, or a folder with {', '.join(SUFFIXES)}.")
    return tuple(found)
