"""Calibration images that are there twice: of the same pixels, or saved again in another format or size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from roadseg.runtime import require

from .choose import Image

NAMED = 10
"""Copies that an error names, at most."""
CELLS = 16
"""Rows and columns of a thumbnail."""
NEAR_CELL = 8
"""Levels of 255 by which no cell of a copy's thumbnail differs. Of CamVid's 367 training frames the two most alike
differ by 21, a second apart before a red light; saved as JPEG of quality 95 to 30, or at half the size, they
differ by 3 to 6 from themselves."""
NEAR_MEAN = 1.0
"""The same on average, which tells frames by night apart: 1.4 for the two most alike of CamVid, 0.1 to 0.93 for
those JPEGs."""

Thumbnail = npt.NDArray[np.int16]
"""`(CELLS, CELLS, 3)`, 0 to 255."""


def thumbnail(frame: npt.NDArray[np.uint8]) -> Thumbnail:
    """The average colours of a frame `(H, W, 3)` uint8 in a grid."""
    cv2 = require("cv2", "looking for copies among images")
    small: npt.NDArray[np.uint8] = cv2.resize(frame, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return small.astype(np.int16)


def find_copies(images: Sequence[Image], thumbnails: Sequence[Thumbnail]) -> dict[str, str]:
    """The images that copy an earlier one, with what they are in words.

    Args:
        images: as described.
        thumbnails: of the same frames, in the same order.

    Returns:
        By `title` of the copy, "<title of the earlier one>" where the pixels are the same, and "all but
        <title>" where only what one sees is.
    """
    first: dict[str, Image] = {}
    for image in images:
        first.setdefault(image.sha256, image)
    copies: dict[str, str] = {}
    seen = np.zeros((0, CELLS, CELLS, 3), np.int16)
    originals: list[Image] = []
    for image, small in zip(images, thumbnails, strict=True):
        near = nearest_copy(small, seen)
        if first[image.sha256] is not image:
            copies[title(image)] = title(first[image.sha256])
        elif near is not None:
            copies[title(image)] = f"all but {title(originals[near])}"
        else:
            originals.append(image)
            seen = np.concatenate([seen, small[None]])
    return copies


def nearest_copy(small: Thumbnail, others: npt.NDArray[np.int16]) -> int | None:
    """Which of `others`, `(N, CELLS, CELLS, 3)`, shows the same as a thumbnail; the nearest of several."""
    # Copies agree in every cell, so those whose first cells differ need no second look.
    alike = np.flatnonzero((np.abs(others[:, 0] - small[0]) <= NEAR_CELL).all(axis=(1, 2)))
    differences = np.abs(others[alike] - small)
    means = differences.mean(axis=(1, 2, 3))
    near = (differences.max(axis=(1, 2, 3), initial=0) <= NEAR_CELL) & (means <= NEAR_MEAN)
    return int(alike[near][np.argmin(means[near])]) if near.any() else None


def title(image: Image) -> str:
    """An image as an error names it.

    >>> title(Image("000019", "aachen", "c0ffee"))
    'aachen/000019'
    """
    return f"{image.group}/{image.name}" if image.group else image.name


def name_copies(copies: dict[str, str]) -> str:
    """The first `NAMED` of them in words."""
    named = [f"{copy} is {original}" for copy, original in list(copies.items())[:NAMED]]
    return ", ".join(named) + (f" and {len(copies) - NAMED} more" if len(copies) > NAMED else "")
