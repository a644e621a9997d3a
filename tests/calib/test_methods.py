import numpy as np
import pytest

from roadseg.calib.methods import METHODS, RULES, parse_methods
from roadseg.runtime import UsageError


def seen_by(method, images):
    statistic = RULES[method].statistic()
    for image in images:
        statistic.add(image)
    return RULES[method].amax(statistic)


def test_every_method_has_its_rule():
    assert set(RULES) == set(METHODS)


def test_on_values_with_a_long_tail_every_method_cuts_off_less_than_min_max_and_keeps_most():
    images = np.random.default_rng(0).laplace(0, 1, (4, 50_000)).astype(np.float32)
    images[3, 0] = 40.0
    ranges = {method: seen_by(method, images) for method in METHODS}
    assert ranges["minmax"] == 40.0
    # 99.99 % of a Laplace distribution lie within ln(10000) = 9.21.
    assert abs(ranges["percentile"] - 9.21) < 0.5
    assert all(8 < ranges[method] < 25 for method in METHODS if method != "minmax")


def test_no_method_finds_a_range_in_zeros():
    assert [seen_by(method, [np.zeros((3, 4), np.float32)]) for method in METHODS] == [0.0] * len(METHODS)


@pytest.mark.parametrize("text", ["", "average", "entropy,", "Entropy"])
def test_an_unknown_method_is_told_the_known_ones(text):
    with pytest.raises(UsageError, match="take one or several of entropy,minmax,moving_average,mse,percentile"):
        parse_methods(text)
