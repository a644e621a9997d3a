"""The range that all but a given share of the values lie in, from a histogram.

Sources: `percentile` of ONNX Runtime's quantization/calibrate.py and of HistogramCalibrator in NVIDIA's ModelOpt.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ONE_IN = 10_000
"""At most one value in so many lies beyond: ModelOpt's default, its 99.99th percentile."""


def percentile_threshold(counts: npt.NDArray[np.int64], width: float) -> float:
    """The first edge of a bin that no more than one in `ONE_IN` values lie beyond, zeros counted.

    The sources return the other edge of the same bin, and so cut off more than they are told to.

    >>> percentile_threshold(np.array([9990, 9, 1]), width=0.5)
    1.0
    """
    within = np.cumsum(counts)
    return int(np.argmax(within[-1] - within <= within[-1] // ONE_IN) + 1) * width
