import math

import numpy as np
import pytest

from roadseg.calib.histogram import BINS, Histogram, Maximum, MovingAverage, largest_magnitude


def test_growing_ranges_count_the_same_as_one_histogram_over_the_final_range():
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, spread, 5000).astype(np.float32) for spread in (0.1, 1, 0.5, 7)]
    # The middles of the smallest bins, so that rounding cannot move a value across an edge.
    width = 2.0**-13
    parts = [(np.floor(np.abs(part) / width) + 0.5) * width * np.sign(part) for part in parts]
    parts[0][0] = BINS * width  # fixes the first limit, and belongs to the last bin below it
    grown = Histogram()
    for part in parts:
        grown.add(part.astype(np.float32))
    parts[0][0] -= width / 2
    everything = np.abs(np.concatenate(parts))
    expected, _ = np.histogram(everything, bins=BINS, range=(0, grown.limit))
    assert everything.max() <= grown.limit < 2 * everything.max()
    np.testing.assert_array_equal(grown.counts, expected)


def test_the_size_of_a_histogram_does_not_depend_on_what_it_saw():
    histogram = Histogram()
    for scale in (1e-6, 1.0, 1e6):
        histogram.add(np.linspace(-scale, scale, 1000, dtype=np.float32))
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.sum() == 3000


def test_a_tensor_of_zeros_has_no_range():
    histogram = Histogram()
    histogram.add(np.zeros((2, 3), np.float32))
    assert histogram.amax(lambda counts, width: math.nan) == 0


def test_zeros_that_come_before_anything_else_are_counted():
    histogram = Histogram()
    histogram.add(np.zeros((2, 3), np.float32))
    histogram.add(np.array([0.0, 5.0], np.float32))
    assert (histogram.counts[0], histogram.counts[-1], histogram.counts.sum()) == (7, 1, 8)


def test_a_threshold_is_given_the_width_of_a_bin():
    histogram = Histogram()
    histogram.add(np.array([-2.0, 1.0], np.float32))
    assert histogram.amax(lambda counts, width: float(np.flatnonzero(counts)[0]) * width) == 1.0


def test_the_maximum_is_that_of_all_images_and_both_signs():
    maximum = Maximum()
    for values in ([1.0, -3.0], [2.0, 0.5]):
        maximum.add(np.array(values, np.float32))
    assert maximum.seen == 3.0


@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_the_moving_average_is_that_of_pytorch_s_observer(shift):
    import torch
    from torch.ao.quantization import MovingAverageMinMaxObserver

    observer = MovingAverageMinMaxObserver(averaging_constant=0.01)
    average = MovingAverage()
    for image in np.random.default_rng(0).normal(shift, 1, (20, 3, 4, 5)).astype(np.float32):
        observer(torch.from_numpy(image))
        average.add(image)
    assert average.amax() == pytest.approx(max(-float(observer.min_val), float(observer.max_val)), rel=1e-6)


def test_one_bright_image_hardly_moves_the_average():
    average = MovingAverage()
    for largest in (1.0, 1.0, 101.0):
        average.add(np.array([-0.5, largest], np.float32))
    assert average.amax() == pytest.approx(2.0)


def test_nan_shows_in_the_largest_magnitude():
    assert np.isnan(largest_magnitude(np.array([1.0, np.nan, 2.0], np.float32)))
