"""Cityscapes in its own layout: `leftImg8bit/<split>/<city>/`, `gtFine/<split>/<city>/`, 19 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from roadseg.runtime import CITYSCAPES, DataError, Key, cityscapes_train_ids
from roadseg.runtime.images import find_frames

from .listed import ListedDataset, Listing

FRAME_SUFFIX = "_leftImg8bit"
LABELS_SUFFIX = "_gtFine_labelIds.png"


def open_cityscapes(root: Path, split: str) -> ListedDataset:
    """Cityscapes' `split`; a frame's group is its city. `test` has no public labels.

    Raises:
        DataError: if the folder lacks the split or a frame lacks its labels.
    """
    folder = root / "leftImg8bit" / split
    cities = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not cities:
        raise DataError(f"{folder} holds no city folders. Give the folder above leftImg8bit/ and gtFine/.")
    listings = tuple(_listing(root, split, city.name, frame) for city in cities for frame in find_frames(city))
    train_ids = cityscapes_train_ids(np.arange(256, dtype=np.uint8))
    return ListedDataset(f"cityscapes:{root}", split, CITYSCAPES, listings, train_ids)


def _listing(root: Path, split: str, city: str, frame: Path) -> Listing:
    name = frame.stem.removesuffix(FRAME_SUFFIX)
    labels = root / "gtFine" / split / city / f"{name}{LABELS_SUFFIX}"
    if split == "test":
        return Listing(Key(name, city), frame, None)
    if not labels.is_file():
        raise DataError(f"{frame} has no labels: {labels} is missing.")
    return Listing(Key(name, city), frame, labels)
