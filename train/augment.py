"""Random changes to a frame and its labels, the same for the same random generator."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from roadseg.runtime import IGNORE, Size

Frame = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How a training sample is varied: scale, crop, flip, colour."""

    crop: Size
    """Rows and columns of what the network sees in training."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale, drawn log-uniformly."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    brightness: float = 0.25
    """Factor drawn from 1 - b to 1 + b."""
    contrast: float = 0.25
    """Factor about the frame's mean, drawn likewise."""
    saturation: float = 0.25
    """Factor about the pixel's grey, drawn likewise."""

    def __call__(self, frame: Frame, labels: Labels, rng: np.random.Generator) -> tuple[Frame, Labels]:
        """Vary one frame `(H, W, 3)` and its labels `(H, W)`; both come back at the crop's size."""
        factor = float(np.exp(rng.uniform(np.log(self.scale[0]), np.log(self.scale[1]))))
        frame, labels = crop_scaled(frame, labels, factor, self.crop, rng)
        if rng.random() < self.flip:
            frame, labels = frame[:, ::-1], labels[:, ::-1]
        return self._recolour(frame, rng), np.ascontiguousarray(labels)

    def _recolour(self, frame: Frame, rng: np.random.Generator) -> Frame:
        brightness, contrast, saturation = (
            1 + rng.uniform(-spread, spread) for spread in (self.brightness, self.contrast, self.saturation)
        )
        x = frame.astype(np.float32)
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * saturation
        mean = x.mean()
        x = (mean + (x - mean) * contrast) * brightness
        recoloured: Frame = np.clip(np.rint(x), 0, 255).astype(np.uint8)
        return recoloured


def crop_scaled(
    frame: Frame, labels: Labels, factor: float, crop: Size, rng: np.random.Generator
) -> tuple[Frame, Labels]:
    """Cut a random window of `crop` pixels out of the frame scaled by `factor`, padded where it is too small.

    Only the window's source is scaled, not the whole frame. Padding is grey with ignored labels.
    """
    rows, columns = (round(c / factor) for c in crop)
    top, left = (_offset(n, w, rng) for n, w in zip(frame.shape[:2], (rows, columns), strict=True))
    window = (slice(max(top, 0), top + rows), slice(max(left, 0), left + columns))
    pad = [
        (max(-o, 0), max(o + w - n, 0))
        for o, w, n in zip((top, left), (rows, columns), frame.shape[:2], strict=True)
    ]
    frame = np.pad(frame[window], (*pad, (0, 0)), constant_values=127)
    labels = np.pad(labels[window], pad, constant_values=IGNORE)
    shrinks = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return _resized(frame, crop, shrinks), _resized(labels, crop, cv2.INTER_NEAREST)


def _resized(image: Frame, size: Size, interpolation: int) -> Frame:
    resized: Any = cv2.resize(image, (size[1], size[0]), interpolation=interpolation)
    return np.asarray(resized, np.uint8)


def _offset(length: int, window: int, rng: np.random.Generator) -> int:
    """Where a window starts: inside the frame, or before it where the window is the larger one."""
    low, high = sorted((0, length - window))
    return int(rng.integers(low, high + 1))
