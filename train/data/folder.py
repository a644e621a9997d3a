"""A plain folder of frames, with or without labels.

    PATH/[SPLIT/]images/a.jpg      PATH/[SPLIT/]labels/a.png      PATH/classes.txt

`labels/` holds 8-bit train ids, 255 where unlabelled; `classes.txt` one class name per line, and without it the
classes are those of Cityscapes. Images directly in PATH are frames without labels.
"""

from __future__ import annotations

from pathlib import Path

from roadseg.runtime import CITYSCAPES, DataError, Key, LabelSet
from roadseg.runtime.images import find_frames
from roadseg.runtime.spec import spread_hues

from .listed import ListedDataset, Listing


def open_folder(root: Path, split: str) -> ListedDataset:
    """The frames of a folder, or of its subfolder `split` where there is one.

    Raises:
        DataError: if there are no images, or some have labels and others none.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}.")
    top = root / split if (root / split).is_dir() else root
    frames = find_frames(top / "images" if (top / "images").is_dir() else top)
    labels = top / "labels"
    listings = tuple(Listing(Key(f.stem, ""), f, _labels_of(f, labels)) for f in frames)
    return ListedDataset(f"folder:{root}", split, read_classes(root / "classes.txt"), listings)


def read_classes(path: Path) -> LabelSet:
    """The label set that a `classes.txt` names, Cityscapes where there is no such file.

    Raises:
        DataError: if the file names no class.
    """
    if not path.is_file():
        return CITYSCAPES
    classes = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    if not classes:
        raise DataError(f"{path} names no class; write one name per line.")
    return LabelSet("folder", classes, spread_hues(len(classes)))


def _labels_of(frame: Path, folder: Path) -> Path | None:
    labels = folder / f"{frame.stem}.png"
    if folder.is_dir() and not labels.is_file():
        raise DataError(f"{frame} has no labels: {labels} is missing. Add it, or take {folder} away.")
    return labels if labels.is_file() else None
