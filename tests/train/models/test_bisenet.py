import pytest
import torch
from torch import nn

from roadseg.train.models import build
from roadseg.train.models.bisenet import FeatureFusion
from roadseg.train.models.xception import Xception39


def test_training_adds_the_logits_of_the_context_at_a_sixteenth_then_at_an_eighth():
    outputs = build("bisenet_x39", 4, aux=True).train()(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in outputs] == [(2, 4, 8, 12), (2, 4, 4, 6), (2, 4, 8, 12)]


def test_xception39_gives_an_eighth_a_sixteenth_and_a_thirty_second():
    features = Xception39().eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(x.shape) for x in features] == [(1, 64, 8, 12), (1, 128, 4, 6), (1, 256, 2, 3)]


def test_an_even_choice_of_channels_adds_half_of_the_fused_features():
    fusion = FeatureFusion(2, 2, normalised=True)
    for module in fusion.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    nn.init.zeros_(fusion.channel_attention[1].weight)
    fused = fusion.eval()(torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 5.0))
    assert fused.flatten().tolist() == pytest.approx([12, 12], rel=1e-4)  # (3 + 5) * 1.5


@pytest.mark.parametrize(("name", "resized"), [("bisenet_r18", True), ("bisenet_r18@coincheung", False)])
def test_context_is_interpolated_or_repeated(name, resized):
    net = build(name, 4).eval()
    seen = []
    net.refines[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(torch.randn(1, 3, 64, 64))
    blocks = seen[0].unfold(2, 2, 2).unfold(3, 2, 2)  # (N, C, 2, 2, 2, 2)
    assert bool((blocks != blocks[..., :1, :1]).any()) == resized
    assert net.align_corners == resized
