"""Image files to arrays, refusing what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DataError
from .optional import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""File types taken for frames."""
END_MARKS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How a JPEG and a PNG begin and end; checked here, so that a decoder's leniency does not matter."""


def read_frame(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one image as `(H, W, 3)` uint8 RGB.

    Raises:
        DataError: if it is missing, cut short, or no image.
        MissingDependencyError: if OpenCV is not installed.
    """
    cv2 = require("cv2", "reading images")
    return np.ascontiguousarray(decode(path, cv2.IMREAD_COLOR)[..., ::-1])


def find_frames(folder: Path) -> list[Path]:
    """The images directly in `folder`, sorted by name.

    Raises:
        DataError: if there are none.
    """
    frames = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not frames:
        raise DataError(f"there are no images ({', '.join(SUFFIXES)}) in {folder}.")
    return frames


def decode(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    """An image file as OpenCV decodes it with `flags`.

    Raises:
        DataError: if it is missing, cut short, or no image.
    """
    cv2 = require("cv2", "reading images")
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
