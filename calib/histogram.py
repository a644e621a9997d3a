"""What is kept of a tensor's values while images pass by: its size does not depend on their number."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from .entropy import entropy_threshold

BINS = 4096
"""Even. After the range has grown as few as half of them are in use, still more than the search needs."""


class Statistic(Protocol):
    """Sees the values of one tensor, image by image, and says how far its range goes."""

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in the finite values of one image, of any shape."""

    def amax(self) -> float:
        """The largest magnitude to represent; 0 if all values were 0."""


class Maximum:
    """The largest magnitude seen."""

    def __init__(self) -> None:
        self.seen = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        self.seen = max(self.seen, largest_magnitude(values))

    def amax(self) -> float:
        return self.seen


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
            return
        self.limit = self.limit or largest
        while self.limit < largest:
            self._double()
        scaled = np.abs(values).ravel()
        scaled *= np.float32(BINS / self.limit)
        # int32 rather than int64: the largest tensors are limited by memory traffic.
        bins = np.minimum(scaled.astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def amax(self) -> float:
        return entropy_threshold(self.counts, self.limit / BINS) if self.limit else 0.0

    def _double(self) -> None:
        self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts[BINS // 2 :] = 0
        self.limit *= 2


def largest_magnitude(values: npt.NDArray[np.float32]) -> float:
    """Max |x|; NaN where there is one."""
    return float(np.maximum(values.max(), -values.min()))
