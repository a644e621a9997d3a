"""The range that makes the mean squared error of quantised values least, from a histogram.

Source: `mse` of HistogramCalibrator in NVIDIA's ModelOpt. It takes every value for the middle of its bin; here
values are spread evenly over their bin, since near the smallest cut a quantisation step is no wider than a bin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .cache import INT8_MAX
from .histogram import bins_used, merge_bins, smooth_zero

SEARCHED_BINS = 1024
"""At most. Between two neighbouring cuts of so many the error near its least hardly changes."""


def mse_threshold(counts: npt.NDArray[np.int64], width: float) -> float:
    """The edge of a bin that makes the squared error least when everything beyond is cut off.

    Cuts begin at `INT8_MAX` bins, as in the source but for one: below, a step is narrower than a bin, of whose
    inside nothing is known.

    Args:
        counts: of |x|, in equal bins that begin at zero.
        width: of a bin, in units of x.
    """
    used = bins_used(counts)
    coarse, merged = merge_bins(counts, SEARCHED_BINS)
    if len(coarse) <= INT8_MAX:
        return used * width
    cuts = np.arange(INT8_MAX, len(coarse) + 1)
    best = int(cuts[np.argmin(squared_error(smooth_zero(coarse), cuts))])
    return min(best * merged, used) * width


def squared_error(counts: npt.NDArray[np.int64], cuts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The squared errors of all values, added up, for every number of bins kept; in squares of a bin's width.

    With cut c the step is s = c / `INT8_MAX`, and x becomes ks, where k is x / s rounded, `INT8_MAX` at most. The
    integral of (x - ks)^2 from 0 to x is ks^3 / 12 + (x - ks)^3 / 3: k whole steps, and what is left of one.
    """
    edges = np.arange(len(counts) + 1)
    steps = cuts[:, None] / INT8_MAX
    levels = np.minimum(np.rint(edges / steps), INT8_MAX)
    integral = levels * steps**3 / 12 + (edges - levels * steps) ** 3 / 3
    errors: npt.NDArray[np.float64] = np.diff(integral) @ counts
    return errors
