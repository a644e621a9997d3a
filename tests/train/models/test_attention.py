import copy
import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from roadseg.export.ops import CRISS_CROSS_ATTENTION, NON_LOCAL_ATTENTION
from roadseg.train.models.attention import ResidualAttention, channel_attention, in_cells
from roadseg.train.models.ocnet import SelfAttention
from roadseg.train.models.psanet import PointwiseAttention
from roadseg.train.models.sac import ScaleAdaptiveConv


def attend(query, key, value):
    """PyTorch's attention of one head, on maps."""
    q, k, v = (x.flatten(2).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(value.shape)


def random_maps(height=5, width=7, batch=2, embedded=4, channels=6):
    generator = torch.Generator().manual_seed(0)
    sizes = (embedded, embedded, channels)
    return [torch.randn(batch, size, height, width, generator=generator) for size in sizes]


@pytest.mark.parametrize("size", [(5, 7), (6, 7), (6, 9)])
def test_attention_in_cells_hears_of_its_own_cell_alone_and_the_last_cells_are_the_largest(size):
    query, key, value = random_maps(*size)
    gathered = in_cells(attend, grid=3)(query, key, value)
    assert gathered.shape == value.shape
    for cell in itertools.product(*(thirds(length) for length in size)):
        place = (..., *cell)
        torch.testing.assert_close(gathered[place], attend(query[place], key[place], value[place]))


def test_cells_of_one_size_answer_together():
    calls = []
    in_cells(lambda q, k, v: calls.append(v.shape) or v, grid=3)(*random_maps(height=7, width=9))
    assert calls == [(2 * 2 * 3, 6, 2, 3), (2 * 3, 6, 3, 3)]


def thirds(length):
    """Places of an axis that belong together."""
    first, second = length // 3, 2 * (length // 3)
    return slice(0, first), slice(first, second), slice(second, length)


def test_channel_attention_takes_most_from_what_resembles_it_least():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]).reshape(1, 3, 1, 2)
    # The first channel's products with the three are 1, 0 and 3: its weights are softmax(2, 3, 0).
    weights = torch.tensor([2.0, 3.0, 0.0]).softmax(0)
    expected = [weights[0] + 3 * weights[2], 2 * weights[1]]
    assert channel_attention(x)[0, 0].flatten().tolist() == pytest.approx([float(y) for y in expected])


def test_residual_attention_starts_as_the_identity():
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(ResidualAttention(16, attend)(x), x)


def test_residual_attention_with_an_operator_can_be_copied():
    attention = ResidualAttention(16, CRISS_CROSS_ATTENTION)
    copied = copy.deepcopy(attention)
    assert copied.attend is CRISS_CROSS_ATTENTION
    assert copied.query.weight is not attention.query.weight


MAKERS = {
    "ccnet": lambda: ResidualAttention(16, CRISS_CROSS_ATTENTION),
    "danet": lambda: ResidualAttention(16, functools.partial(NON_LOCAL_ATTENTION, scale=1.0)),
    "ocnet": lambda: SelfAttention(16, 8, 12, grid=3),
    "psanet": lambda: PointwiseAttention(16, 8, 5, collects=True),
    "sac": lambda: ScaleAdaptiveConv(16, 16, 2),
}
"""What is made of operators, by one of the networks that have it."""


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
def test_what_is_made_of_operators_learns_under_autocast(name, lower):
    torch.manual_seed(0)
    module, x = MAKERS[name](), torch.randn(2, 16, 8, 10)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # some start at zero
    expected = module(x)
    with torch.autocast("cpu", lower):
        y = module(x)
    assert (y - expected).abs().max() < 0.03 * expected.abs().max()
    y.float().square().sum().backward()
    assert [key for key, p in module.named_parameters() if not p.grad.abs().sum() > 0] == []
