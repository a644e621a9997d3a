import pytest
import torch

from roadseg.train.models.psanet import PointwiseAttention, scores_between


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (3, 3), (5, 2)])
def test_scores_stand_at_the_place_that_they_were_given_to_and_zero_outside_the_window(size):
    rows, columns = size
    given = torch.rand(2, 25, rows, columns)
    expected = torch.zeros(2, rows * columns, rows * columns)
    for row in range(rows):
        for column in range(columns):
            for other_row in range(max(0, row - 2), min(rows, row + 3)):
                for other_column in range(max(0, column - 2), min(columns, column + 3)):
                    offset = (other_row - row + 2) * 5 + other_column - column + 2
                    own, other = row * columns + column, other_row * columns + other_column
                    expected[:, own, other] = given[:, offset, row, column]
    assert torch.equal(scores_between(given, 5), expected)


@pytest.mark.parametrize("collects", [True, False])
def test_the_softmax_runs_over_what_is_collected_or_over_those_who_give(collects):
    torch.manual_seed(0)
    attend = PointwiseAttention(4, 2, 3, collects=collects).eval()
    x = torch.randn(1, 4, 5, 7)
    small = torch.nn.functional.interpolate(attend.reduce(x), (3, 4), mode="bilinear", align_corners=True)
    scores = scores_between(attend.predict(small), 3)[0].exp()  # (own, other)
    y = attend(x)[0].flatten(1)
    for place in range(12):
        weights = scores[place] / scores[place].sum() if collects else scores[:, place] / scores[:, place].sum()
        assert torch.allclose(y[:, place], small[0].flatten(1) @ weights, atol=1e-6)
