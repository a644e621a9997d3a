import pytest
import torch

from roadseg.runtime import UsageError
from roadseg.train.models import build
from roadseg.train.models.layers import Conv2d
from roadseg.train.models.outputs import Outputs

WITH_AUX = ("fastscnn", "bisenet_r18", "bisenetv2", "ddrnet23_slim", "pidnet_s")
"""Some that give logits at an eighth and have heads for training alone."""


@pytest.mark.parametrize("name", WITH_AUX)
@pytest.mark.parametrize("size", [(64, 96), (72, 120)])
def test_logits_stand_at_an_eighth_whatever_the_size(name, size):
    with torch.inference_mode():
        logits = build(name, classes=7).eval()(torch.randn(2, 3, *size))
    assert logits.shape == (2, 7, size[0] // 8, size[1] // 8)


@pytest.mark.parametrize("name", WITH_AUX)
def test_training_adds_auxiliary_logits_and_every_parameter_gets_a_gradient(name):
    net = build(name, classes=5, aux=True).train()
    outputs = net(torch.randn(2, 3, 64, 64))
    logits, edges = outputs if isinstance(outputs, Outputs) else (outputs, [])
    assert len(logits) > 1
    sum(x.square().mean() for x in (*logits, *edges)).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", WITH_AUX)
def test_a_network_without_auxiliary_heads_has_a_subset_of_the_keys(name):
    assert build(name, 19).state_dict().keys() < build(name, 19, aux=True).state_dict().keys()


def test_convolutions_start_with_hes_weights_and_no_bias():
    torch.manual_seed(0)
    conv = Conv2d(64, 128, 3, groups=2, bias=True)
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert not conv.bias.any()


def test_fastscnn_has_the_size_of_the_public_port():
    parameters = sum(p.numel() for p in build("fastscnn", 19).parameters())
    assert round(parameters / 1e6, 3) == 1.138
    assert len(build("fastscnn", 19).state_dict()) == 268


def test_bisenet_has_the_size_of_the_authors_network():
    with_aux = sum(p.numel() for p in build("bisenet_r18", 19, aux=True).parameters())
    assert round(with_aux / 1e6, 1) == 13.5


@pytest.mark.parametrize("name", ["resnet", "json:nothing", "no_such_module:net", "json:dumps"])
def test_a_network_that_cannot_be_made_is_a_usage_error(name):
    with pytest.raises(UsageError, match=name):
        build(name, 19)
