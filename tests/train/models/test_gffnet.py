import pytest
import torch
from torch import nn

from roadseg.train.models.gffnet import DensePyramid, GatedFusion
from roadseg.train.models.wideresnet import Block, WiderResNet

OPEN, SHUT = 50.0, -50.0


def fused(first_gate, second_gate, in_sequence):
    """What a fusion makes of a large map of threes and a small one of fives, whose gates are fixed."""
    fusion = GatedFusion([1, 1], gate_channels=1, in_sequence=in_sequence)
    for gate, bias in zip(fusion.gates, (first_gate, second_gate), strict=True):
        nn.init.zeros_(gate.weight)
        nn.init.constant_(gate.bias, bias)
    levels = [torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 2, 2), 5.0)]
    outputs = fusion(levels, levels)
    assert [x.shape for x in outputs] == [x.shape for x in levels]
    assert all(x.std() < 1e-4 for x in outputs)
    return [x.mean().item() for x in outputs]


def test_a_level_whose_gate_is_shut_takes_what_the_others_let_out():
    assert fused(SHUT, OPEN, in_sequence=False) == pytest.approx([3 + 5, 2 * 5])


def test_nothing_passes_between_shut_gates():
    assert fused(SHUT, SHUT, in_sequence=False) == pytest.approx([3, 5])


def test_in_sequence_a_level_sees_the_fused_one_before_it():
    assert fused(OPEN, SHUT, in_sequence=False) == pytest.approx([6, 5 + 3])
    assert fused(OPEN, SHUT, in_sequence=True) == pytest.approx([6, 5 + 6])


def test_each_block_of_the_dense_pyramid_takes_one_map_more():
    pyramid = DensePyramid(2, (1, 2, 3), behind=1)
    assert [block[0].num_features for block in pyramid.blocks] == [4, 6, 8]


def test_the_skip_of_a_wide_block_is_activated_only_where_it_is_projected():
    for stride, expected in ((1, -1.0), (2, 0.0)):
        block = Block(1, (1, 1), stride, dilation=1, dropout=0.0).eval()
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, 1.0 if module is block.project else 0.0)
        assert block(torch.full((1, 1, 2, 2), -1.0)).unique().item() == pytest.approx(expected)


def test_the_wide_backbone_gives_a_half_and_two_eighths():
    with torch.device("meta"):
        maps = WiderResNet()(torch.empty(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 128, 32, 48), (2, 1024, 8, 12), (2, 4096, 8, 12)]
