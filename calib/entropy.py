"""The range that loses least information, from a histogram.

Source of the procedure: S. Migacz, "8-bit Inference with TensorRT", NVIDIA GTC 2017, slides 26 to 38.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .histogram import bins_used, merge_bins, smooth_zero

LEVELS = 128
"""Magnitudes of a symmetric 8-bit number."""
SEARCHED_BINS = 1024
"""At most. The source takes 2048; the more bins, the smaller the smallest cut, where a level is a single bin and
nothing but the tail counts. On CamVid's 101 validation frames a half-trained Fast-SCNN kept 96.7 % of its labels
with 512 bins, 98.2 % with 1024, 97.2 % with 2048 and 96.1 % with 4096; a trained one 97.5, 98.1, 97.8, 97.8."""


def entropy_threshold(counts: npt.NDArray[np.int64], width: float) -> float:
    """The threshold that keeps the quantised distribution closest to the histogram.

    Args:
        counts: of |x|, in equal bins that begin at zero.
        width: of a bin, in units of x.

    Returns:
        The middle of the bin behind the best cut, as in the source, or the upper edge of the last bin that is
        not empty where that is less.
    """
    used = bins_used(counts)
    coarse, merged = merge_bins(counts, SEARCHED_BINS)
    if len(coarse) <= LEVELS:
        return used * width
    cuts, divergences = divergence_by_cut(coarse)
    return min((float(cuts[np.argmin(divergences)]) + 0.5) * merged, used) * width


def divergence_by_cut(
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Kullback-Leibler divergence of histogram and quantised histogram, for every number of bins kept.

    P is the first `cut` bins, with what lies beyond added to the last of them. Q is the same bins in `LEVELS`
    levels, each spread evenly over its bins that are not empty. D = sum P ln(P / Q), both normalised; it is
    infinite where Q is zero and P is not. The sums over bins are differences of running totals, so that all
    cuts are searched at once.

    Returns:
        Cuts from `LEVELS` to `len(counts)`, and the divergence of each in nats.
    """
    heights = smooth_zero(counts).astype(np.float64)
    cuts = np.arange(LEVELS, len(heights) + 1)
    edges = -(-cuts[:, None] * np.arange(LEVELS + 1) // LEVELS)  # (cuts, LEVELS + 1), rounded up
    mass = _running_total(heights)
    filled = _running_total(heights > 0)
    level_mass = np.diff(mass[edges])
    level_height = _divide(level_mass, np.diff(filled[edges]))
    total = mass[-1]
    kept = mass[cuts]
    outliers = total - kept
    final = heights[cuts - 1]
    own_entropy = _running_total(_x_log(heights, heights))[cuts - 1] + _x_log(final + outliers, final + outliers)
    cross_entropy = _x_log(level_mass, level_height).sum(axis=1) + _x_log(outliers, level_height[:, -1])
    with np.errstate(divide="ignore"):
        divergence = (own_entropy - cross_entropy) / total + np.log(kept / total)
    return cuts, np.where((outliers > 0) & (final == 0), np.inf, divergence)


def _running_total(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _divide(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _x_log(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """X ln y, zero where either is zero."""
    logs = np.log(y, out=np.zeros_like(y), where=y > 0)
    return x * logs
