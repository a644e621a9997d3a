import math

import numpy as np
import pytest

from roadseg.calib.histogram import Histogram
from roadseg.calib.mse import mse_threshold, squared_error


def error_of(values, amax):
    """Mean squared error of int8 numbers, value by value."""
    scale = amax / 127
    return np.mean((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2)


def test_the_error_of_evenly_spread_values_is_a_twelfth_of_the_step_squared():
    # 127 bins, and a step of one bin: 7 values in each of them, and 1/12 each.
    # The last step reaches half a bin beyond, so nothing is cut off.
    assert squared_error(np.full(127, 7), np.array([127])) == pytest.approx([127 * 7 / 12])


def test_what_lies_beyond_is_off_by_its_distance():
    counts = np.zeros(400, np.int64)
    counts[399] = 2
    # Bin 399 spans 399 to 400, the cut is at 254: the mean of (x - 254)^2 there is (146^3 - 145^3) / 3.
    assert squared_error(counts, np.array([254])) == pytest.approx([2 * (146**3 - 145**3) / 3])


def test_the_optimum_for_laplacian_values_is_that_of_theory():
    # Banner et al. 2019, arXiv:1810.05723, section 3: 2 exp(-a) + s^2 / 12 with s = a / 127 is least where
    # a exp(a) = 12 * 127^2.
    expected = 10.0
    for _ in range(50):
        expected = math.log(12 * 127**2 / expected)
    width = 0.02
    edges = np.arange(1001) * width
    counts = np.rint(1e15 * -np.diff(np.exp(-edges))).astype(np.int64)
    assert expected == pytest.approx(9.8825, abs=1e-4)
    assert mse_threshold(counts, width) == pytest.approx(expected, abs=2 * width)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["laplace", "normal", "relu", "outlier"])
def test_no_other_range_does_noticeably_better_on_the_values_themselves(seed, kind):
    rng = np.random.default_rng(seed)
    values = rng.laplace(0, 1, 20_000) if kind == "laplace" else rng.normal(0, 2, 20_000)
    if kind == "relu":
        values = np.maximum(values, 0)
    if kind == "outlier":
        values[0] = 60
    values = values.astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    largest = float(np.abs(values).max())
    best = min(error_of(values, amax) for amax in np.linspace(0.05, 1, 150) * largest)
    assert error_of(values, histogram.amax(mse_threshold)) <= 1.02 * best


def test_the_peak_at_zero_after_a_relu_does_not_count():
    counts = np.rint(1e6 * np.exp(-np.arange(900) / 60)).astype(np.int64)
    peaked = counts.copy()
    peaked[0] = 10**12
    assert mse_threshold(peaked, 1.0) == mse_threshold(counts, 1.0) < 900


def test_fewer_bins_than_levels_are_kept_whole():
    counts = np.zeros(4096, np.int64)
    counts[:50] = 7
    assert mse_threshold(counts, width=0.5) == 25.0
