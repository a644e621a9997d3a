"""Pictures and videos as text, for a page that needs no other file."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roadseg.runtime import LabelSet, require
from roadseg.runtime.artifacts import read_bytes

MAX_WIDTH = 640
"""Of a picture in a page, in pixels; wider ones are shrunk."""
MAX_VIDEO_BYTES = 12_000_000
"""A larger video is linked."""
JPEG_QUALITY = 90
DIFFERENT = (255, 0, 128)
"""RGB of pixels with two answers; they are painted over a faded frame, where nothing else has this colour."""

Labels = npt.NDArray[np.uint8]
"""`(H, W)` uint8 train ids."""
Image = npt.NDArray[np.uint8]
"""`(H, W, 3)` RGB or `(H, W, 4)` RGBA, uint8."""


def embed_frame(frame: Image) -> str:
    """A camera frame as a data URI."""
    cv2 = _cv2()
    return _encode(shrink(frame, cv2.INTER_AREA), ".jpg", "image/jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def embed_labels(labels: Labels, label_set: LabelSet) -> str:
    """Labels in their colours as a data URI, see-through where there is none."""
    return _encode(paint(shrink(labels, _cv2().INTER_NEAREST), label_set), ".png", "image/png")


def embed_differences(reference: Labels, candidate: Labels) -> str:
    """What `mark_differences` paints as a data URI; shrunk, a pixel is as opaque as its share of differences."""
    return _encode(shrink(mark_differences(reference, candidate), _cv2().INTER_AREA), ".png", "image/png")


def embed_video(path: Path) -> str:
    """A video as a data URI, or, if it is larger than MAX_VIDEO_BYTES, its name as a link from the same folder.

    Raises:
        ArtifactError: if it cannot be read.
    """
    if path.is_file() and path.stat().st_size > MAX_VIDEO_BYTES:
        return urllib.parse.quote(path.name)
    return data_uri(read_bytes(path), "video/mp4")


def paint(labels: Labels, label_set: LabelSet) -> Image:
    """Labels as `(H, W, 4)` RGBA, transparent where they are none of the classes."""
    known = labels < len(label_set.classes)
    return np.dstack([label_set.colorize(labels), np.where(known, 255, 0).astype(np.uint8)])


def mark_differences(reference: Labels, candidate: Labels) -> Image:
    """`(H, W, 4)` RGBA: DIFFERENT where the two are not the same, transparent elsewhere."""
    marked = np.empty((*reference.shape, 4), np.uint8)
    # The colour also where it is transparent: shrinking averages both.
    marked[..., :3] = DIFFERENT
    marked[..., 3] = np.where(reference != candidate, 255, 0)
    return marked


def shrink(image: npt.NDArray[np.uint8], interpolation: int) -> npt.NDArray[np.uint8]:
    """Bring an image down to MAX_WIDTH columns; a narrower one stays as it is."""
    rows, columns = image.shape[:2]
    if columns <= MAX_WIDTH:
        return image
    size = MAX_WIDTH, max(1, round(rows * MAX_WIDTH / columns))
    shrunk: npt.NDArray[np.uint8] = _cv2().resize(image, size, interpolation=interpolation)
    return shrunk


def data_uri(data: bytes, media_type: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _encode(image: Image, suffix: str, media_type: str, settings: list[int] | None = None) -> str:
    cv2 = _cv2()
    order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, order), settings or [])
    return data_uri(data.tobytes(), media_type)


def _cv2() -> Any:
    return require("cv2", "putting pictures into a page")
