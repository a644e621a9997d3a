"""What is kept of a tensor's values while images pass by: its size does not depend on their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Threshold = Callable[[npt.NDArray[np.int64], float], float]
"""Where to cut a histogram of |x| off, from its counts, not all zero, and the width of a bin."""
BINS = 4096
"""Even. After the range has grown as few as half of them are in use, still more than the search needs."""


class Statistic(Protocol):
    """Sees the values of one tensor, image by image, and keeps what ranges are taken from."""

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in the finite values of one image, of any shape."""


class Maximum:
    """The largest magnitude seen."""

    def __init__(self) -> None:
        self.seen = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        self.seen = max(self.seen, largest_magnitude(values))


class MovingAverage:
    """Least and largest value of an image, each averaged with a weight that fades from image to image.

    As torch.ao.quantization's MovingAverageMinMaxObserver and ONNX Runtime's `moving_average` do: those of the
    first image move by a hundredth of the way to those of each next one. Over 64 images the first one still has
    half of the weight.
    """

    PACE = 0.01
    """Weight of a new image; the default of both sources."""

    def __init__(self) -> None:
        self.images = 0
        self.least = 0.0
        self.largest = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        pace = self.PACE if self.images else 1.0
        self.least += pace * (float(values.min()) - self.least)
        self.largest += pace * (float(values.max()) - self.largest)
        self.images += 1

    def amax(self) -> float:
        """The larger magnitude of the two averages."""
        return max(-self.least, self.largest)


class Histogram:
    """Counts of magnitudes in `BINS` equal bins from zero; the range doubles, bins merging in pairs, when needed.

    Merging is exact, so one pass over the images is enough.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        """Upper edge of the last bin; 0 until a value other than 0 was seen."""

    def add(self, values: npt.NDArray[np.float32]) -> None:
        largest = largest_magnitude(values)
        if largest == 0:
            self.counts[0] += values.size
            return
        self.limit = self.limit or largest
        while self.limit < largest:
            self._double()
        scaled = np.abs(values).ravel()
        scaled *= np.float32(BINS / self.limit)
        # int32 rather than int64: the largest tensors are limited by memory traffic.
        bins = np.minimum(scaled.astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def amax(self, threshold: Threshold) -> float:
        """The largest magnitude to represent; 0 if all values were 0."""
        return threshold(self.counts, self.limit / BINS) if self.limit else 0.0

    def _double(self) -> None:
        self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts[BINS // 2 :] = 0
        self.limit *= 2


def largest_magnitude(values: npt.NDArray[np.float32]) -> float:
    """Max |x|; NaN where there is one."""
    return float(np.maximum(values.max(), -values.min()))


def merge_bins(counts: npt.NDArray[np.int64], most: int) -> tuple[npt.NDArray[np.int64], int]:
    """The bins up to the last one that is not empty, merged into `most` at most, and how many make one.

    >>> merge_bins(np.array([1, 2, 3, 4, 5, 0]), 3)
    (array([3, 7, 5]), 2)
    """
    used = bins_used(counts)
    merged = -(-used // most)
    return np.add.reduceat(counts[:used], np.arange(0, used, merged)), merged


def bins_used(counts: npt.NDArray[np.int64]) -> int:
    """How many bins there are up to the last one that is not empty."""
    return int(np.flatnonzero(counts)[-1]) + 1


def smooth_zero(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Give the first bin the count of the second.

    After a ReLU most values are exactly zero, which every scale represents exactly; their peak would outweigh
    everything else. As in NVIDIA's pytorch-quantization, calib/histogram.py.
    """
    return np.concatenate([counts[1:2], counts[1:]])
