import torch

from roadseg.train.models import build
from roadseg.train.models.context import PyramidContext
from roadseg.train.models.icnet import halved


def test_a_map_is_halved_by_its_corners_and_an_odd_length_loses_its_rest():
    x = torch.arange(5.0).expand(1, 1, 4, 5)
    assert halved(x)[0, 0].tolist() == [[0, 4], [0, 4]]


def test_training_adds_logits_of_the_coarse_side_of_both_fusions():
    outputs = build("icnet", classes=4, aux=True).train()(torch.randn(2, 3, 128, 192))
    # The stem's pool rounds up: what would stand at 1/16 is a row and a column larger.
    assert [tuple(x.shape[2:]) for x in outputs] == [(32, 48), (16, 24), (9, 13)]


def test_a_padded_context_has_a_rim_that_no_position_of_the_map_reaches():
    context = PyramidContext(8, 4, padding=1).eval()
    first, second = (context(torch.randn(1, 8, 6, 7)) for _ in range(2))
    assert first.shape == (1, 4, 8, 9)
    inner = (..., slice(1, -1), slice(1, -1))
    assert not torch.equal(first[inner], second[inner])
    first[inner] = second[inner] = 0
    assert torch.equal(first, second)
