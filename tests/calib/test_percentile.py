import contextlib
import io

import numpy as np
import pytest

from roadseg.calib.histogram import BINS, Histogram
from roadseg.calib.percentile import percentile_threshold


def counts_of(*filled):
    counts = np.zeros(100, np.int64)
    for place, count in filled:
        counts[place] = count
    return counts


def test_one_value_in_ten_thousand_may_lie_beyond_and_no_more():
    assert percentile_threshold(counts_of((9, 9_999), (80, 1)), width=0.5) == 5.0
    assert percentile_threshold(counts_of((9, 9_998), (80, 2)), width=0.5) == 40.5
    assert percentile_threshold(counts_of((9, 9_998), (80, 1)), width=0.5) == 40.5
    assert percentile_threshold(counts_of((9, 29_997), (40, 1), (80, 2)), width=0.5) == 20.5 - 15.5


def test_zeros_count_as_values():
    assert percentile_threshold(counts_of((0, 20_000), (50, 2)), width=1.0) == 1.0


def test_a_histogram_of_one_bin_is_kept():
    assert percentile_threshold(counts_of((99, 3)), width=1.0) == 100.0


@pytest.mark.parametrize("seed", range(3))
def test_it_cuts_the_bin_that_onnx_runtime_cuts_at_its_other_edge(seed):
    from onnxruntime.quantization.calibrate import HistogramCollector

    # Not a multiple of ten thousand, where the sum of their rounded shares decides between two bins.
    values = np.random.default_rng(seed).laplace(0, 1, 100_003).astype(np.float32)
    values[0] = 0  # ONNX Runtime's histogram begins with the least magnitude
    histogram = Histogram()
    histogram.add(values)
    collector = HistogramCollector("percentile", True, BINS, 128, 99.99, "same")
    collector.collect_absolute_value({"x": values})
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = float(collector.compute_percentile()["x"][1])
    ours = histogram.amax(percentile_threshold)
    assert ours == pytest.approx(theirs + histogram.limit / BINS, rel=1e-5)
    assert (np.abs(values) > ours).mean() <= 1e-4
