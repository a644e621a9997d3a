"""Pixels before and after a model, in numpy: what a graph with `io` "tensor" leaves to its caller; resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import SpecError
from .labels import IGNORE
from .optional import require
from .spec import ModelSpec, Size

PADDING = 127
"""Grey of the bars around a letterboxed frame."""


def normalise(frames: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Frames `(N, H, W, 3)` uint8 RGB as the network was trained on them, `(N, 3, H, W)` float32."""
    ordered = frames[..., ::-1] if spec.channels == "bgr" else frames
    mean, std = np.array(spec.mean, np.float64), np.array(spec.std, np.float64)
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return np.ascontiguousarray((ordered * scale + shift).transpose(0, 3, 1, 2))


def classify(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Train ids `(N, H, W)` uint8 of logits `(N, classes, H, W)`; the lowest class where several tie."""
    labels: npt.NDArray[np.uint8] = logits.argmax(axis=1).astype(np.uint8)
    return labels


def fit(frame: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Bring a frame `(h, w, 3)` uint8 RGB of any size to the model's, by `spec.resize`.

    Raises:
        SpecError: if `frame` has another shape or type.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise SpecError(
            f"{spec.name} takes a frame of shape (rows, columns, 3) and type uint8 (RGB), "
            f"got {frame.shape} {frame.dtype}."
        )
    if frame.shape[:2] == spec.size:
        return frame
    rows, columns = inner_size(_size(frame), spec)
    cv2 = require("cv2", "resizing frames")
    shrinks = rows < frame.shape[0]
    resized = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    fitted = np.full((*spec.size, 3), PADDING, np.uint8)
    fitted[_inside((rows, columns), spec)] = resized
    return fitted


def fit_labels(labels: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Bring a frame's train ids `(h, w)` to where `fit` brings their pixels; nearest neighbour, 255 in bars."""
    inner = inner_size(_size(labels), spec)
    fitted = np.full(spec.size, IGNORE, np.uint8)
    fitted[_inside(inner, spec)] = _nearest(labels, inner)
    return fitted


def unfit(labels: npt.NDArray[np.uint8], spec: ModelSpec, size: Size) -> npt.NDArray[np.uint8]:
    """Bring labels of a fitted frame, `(height, width)`, back to the frame's `size`; nearest neighbour."""
    if labels.shape == size:
        return labels
    return _nearest(labels[_inside(inner_size(size, spec), spec)], size)


def inner_size(size: Size, spec: ModelSpec) -> Size:
    """Rows and columns that a frame of `size` takes up in the model's input.

    >>> inner_size((720, 1280), ModelSpec("tiny", 512, 512, resize="letterbox"))
    (288, 512)
    """
    if spec.resize == "stretch":
        return spec.size
    factor = min(spec.height / size[0], spec.width / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _inside(inner: Size, spec: ModelSpec) -> tuple[slice, slice]:
    """Where in the model's input a frame stands that takes up so many rows and columns of it."""
    top, left = (spec.height - inner[0]) // 2, (spec.width - inner[1]) // 2
    return slice(top, top + inner[0]), slice(left, left + inner[1])


def _nearest(labels: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """Labels in another size: of each target pixel's centre, in source pixels."""
    y, x = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, labels.shape, strict=True))
    return np.ascontiguousarray(labels[y[:, None], x])


def _size(frame: npt.NDArray[np.uint8]) -> Size:
    return frame.shape[0], frame.shape[1]
