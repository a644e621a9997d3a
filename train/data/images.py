"""Frames with their labels, read from files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from roadseg.runtime import DataError, Sample
from roadseg.runtime.data import Key
from roadseg.runtime.images import decode, read_frame


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one label map, `(H, W)` uint8.

    Raises:
        DataError: if it is missing, cut short, or not an 8-bit single-channel image.
    """
    labels = decode(path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            f"{path} should hold one 8-bit class number per pixel, but is {labels.shape} {labels.dtype}. "
            "Is it a colour map? Convert it to train ids."
        )
    return labels


def read_sample(key: Key, frame_path: Path, labels_path: Path | None) -> Sample:
    """Decode a frame with its labels, which must be of the frame's size.

    Raises:
        DataError: if either cannot be read or the sizes differ.
    """
    frame = read_frame(frame_path)
    labels = read_labels(labels_path) if labels_path else None
    if labels is not None and labels.shape != frame.shape[:2]:
        raise DataError(
            f"{labels_path} has {labels.shape[0]}x{labels.shape[1]} labels for a frame of "
            f"{frame.shape[0]}x{frame.shape[1]} ({frame_path.name}). Labels must have their frame's size."
        )
    return Sample(key, frame, labels)
