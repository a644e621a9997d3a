"""Data sets by name, as the command line writes them: `kind:path`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from roadseg.runtime import Dataset, UsageError

from .camvid import open_camvid
from .cityscapes import open_cityscapes
from .folder import open_folder
from .video import open_video


def open_scenes(options: str, split: str) -> Dataset:
    """Generated scenes; `options` as in "count=64,size=256x512,seed=3"."""
    from .scenes import Scenes

    return Scenes.from_options(options, split)


KINDS: dict[str, Callable[[str, str], Dataset]] = {
    "camvid": lambda path, split: open_camvid(Path(path), split),
    "cityscapes": lambda path, split: open_cityscapes(Path(path), split),
    "folder": lambda path, split: open_folder(Path(path), split),
    "scenes": open_scenes,
    "video": lambda path, split: open_video(Path(path), split),
}
"""What may stand before the colon."""


def open_data(text: str, split: str) -> Dataset:
    """Open `kind:path`, for example "camvid:../shared/data/camvid" or "scenes:count=64".

    Raises:
        UsageError: if there is no such kind.
        DataError: if the data set is not there or incomplete.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS or (not rest and kind != "scenes"):
        raise UsageError(f"data is given as kind:path with kind one of {', '.join(KINDS)}, got {text!r}.")
    return KINDS[kind](rest, split)
