"""Image files to arrays, refusing what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from roadseg.runtime import DataError, Sample
from roadseg.runtime.data import Key

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""File types taken for frames."""
END_MARKS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How a JPEG and a PNG begin and end; OpenCV decodes a file that was cut short, in part, without an error."""


def read_frame(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one image as `(H, W, 3)` uint8 RGB.

    Raises:
        DataError: if it is missing, cut short, or no image.
    """
    return np.ascontiguousarray(_decode(path, cv2.IMREAD_COLOR)[..., ::-1])


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one label map, `(H, W)` uint8.

    Raises:
        DataError: if it is missing, cut short, or not an 8-bit single-channel image.
    """
    labels = _decode(path, cv2.IMREAD_UNCHANGED)
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


def find_frames(folder: Path) -> list[Path]:
    """The images directly in `folder`, sorted by name.

    Raises:
        DataError: if there are none.
    """
    frames = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not frames:
        raise DataError(f"there are no images ({', '.join(SUFFIXES)}) in {folder}.")
    return frames


def _decode(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if _is_complete(data) else None
    if image is None:
        raise DataError(f"{path} is not an image that can be read, or was cut short. Replace it or take it out.")
    decoded: npt.NDArray[np.uint8] = image
    return decoded


def _is_complete(data: bytes) -> bool:
    for begin, end in END_MARKS.items():
        if data.startswith(begin):
            return end in data[-64:]
    return bool(data)
