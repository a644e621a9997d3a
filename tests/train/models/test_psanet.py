import itertools

import pytest
import torch

from roadseg.train.models.psanet import PointwiseAttention


@pytest.mark.parametrize("collects", [True, False])
def test_the_softmax_runs_over_what_is_collected_or_over_those_who_give(collects):
    torch.manual_seed(0)
    attend = PointwiseAttention(4, 2, 3, collects=collects).eval()
    attend.predict = torch.nn.Conv2d(2, 9, 1)  # its own would say next to nothing
    x = torch.randn(1, 4, 5, 7)
    small = torch.nn.functional.interpolate(attend.reduce(x), (3, 4), mode="bilinear", align_corners=True)
    says = what_each_says(attend.predict(small)[0], (3, 4)).exp()  # (own, other)
    y = attend(x)[0].flatten(1)
    for place in range(12):
        weights = says[place] / says[place].sum() if collects else says[:, place] / says[:, place].sum()
        assert torch.allclose(y[:, place], small[0].flatten(1) @ weights, atol=1e-6)


def what_each_says(scores, size):
    """Of each place of others, by looking into a window of 3x3 around it; 0 of what is outside."""
    places = list(itertools.product(*map(range, size)))
    says = torch.zeros(len(places), len(places))
    for (own, (row, column)), (other, (other_row, other_column)) in itertools.product(enumerate(places), repeat=2):
        down, along = other_row - row + 1, other_column - column + 1
        if 0 <= down < 3 and 0 <= along < 3:
            says[own, other] = scores[3 * down + along, row, column]
    return says
