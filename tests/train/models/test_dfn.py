import pytest
import torch
from torch import nn

from roadseg.train.models import build
from roadseg.train.models.dfn import BorderNetwork, ChannelAttention, RefinementResidual
from roadseg.train.models.outputs import Outputs


def test_an_undecided_attention_takes_half_of_the_stage_and_all_that_lies_deeper():
    attention = ChannelAttention(2)
    for parameter in attention.parameters():
        nn.init.zeros_(parameter)
    mixed = attention(torch.full((1, 2, 1, 1), 6.0), torch.full((1, 2, 1, 1), 5.0))
    assert mixed.flatten().tolist() == [8, 8]  # 6 / 2 + 5


@pytest.mark.parametrize(("relu", "expected"), [(True, [0, 3]), (False, [-2, 3])])
def test_a_refinement_adds_to_its_reduced_input(relu, expected):
    block = RefinementResidual(1, 1, relu=relu).eval()
    nn.init.ones_(block.reduce.weight)
    nn.init.zeros_(block.refine[-1].weight)
    assert block(torch.tensor([[[[-2.0, 3.0]]]])).flatten().tolist() == expected


def test_each_border_sees_one_stage_more_at_the_size_of_the_first():
    torch.manual_seed(0)
    border = BorderNetwork((2, 3, 4), 5).eval()
    stages = [torch.randn(1, 2, 8, 12), torch.randn(1, 3, 4, 6), torch.randn(1, 4, 2, 3)]
    before = border(stages)
    after = border([*stages[:2], stages[2] + 1])
    assert [tuple(x.shape) for x in before] == [(1, 1, 8, 12)] * 3
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_training_gives_the_finest_logits_first_then_from_coarse_to_fine():
    outputs = build("dfn_r101", 4, aux=True).train()(torch.randn(2, 3, 64, 96))
    assert isinstance(outputs, Outputs)
    sizes = [tuple(x.shape[2:]) for x in outputs.logits]
    assert sizes == [(16, 24), (2, 3), (4, 6), (8, 12)]
    assert [tuple(x.shape) for x in outputs.edges] == [(2, 1, 16, 24)] * 4
