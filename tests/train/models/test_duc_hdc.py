import pytest
import torch
from torch import nn

from roadseg.train.models import build


@pytest.fixture(scope="module")
def net():
    return build("duc_hdc_r101", 2).eval()


@torch.no_grad()
def test_a_place_of_the_map_gives_a_cell_of_logits_row_by_row_and_class_by_class(net):
    for head in net.heads:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    net.heads[0].bias += torch.arange(32.0)
    net.heads[3].bias += 100
    logits = net(torch.rand(1, 3, 64, 48))
    assert logits.shape == (1, 2, 32, 24)
    for c, i, j in ((0, 0, 1), (0, 1, 0), (1, 2, 3)):
        assert (logits[0, c, i::4, j::4] == 100 + 16 * c + 4 * i + j).all()


@torch.no_grad()
def test_the_stems_pool_sees_nothing_beyond_the_border(net):
    edge = net.backbone.stem(torch.rand(1, 3, 64, 48))
    assert edge.shape == (1, 128, 15, 11)  # of 32x24: windows from 0, 2, ... that end within


def test_dilations_and_epsilon_are_the_authors(net):
    def rates(stage):
        return [block.conv2.dilation[0] for block in stage]

    assert rates(net.backbone.layer3) == [2, 2, 5, 9, 1, 2, 5, 9, 1, 2, 5, 9, 1, 2, 5, 9, 1, 2, 5, 9, 1, 2, 5]
    assert rates(net.backbone.layer4) == [5, 9, 17]
    assert [head.dilation[0] for head in net.heads] == [6, 12, 18, 24]
    assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-6}


def test_the_parameters_are_those_of_the_authors_symbol():
    with torch.device("meta"):
        net = build("duc_hdc_r101", 19)
    # torchvision's ResNet-101 without its classifier has 42,500,160. A deep stem adds 3x3 convolutions of 3 to 64,
    # 64 to 64 and 64 to 128 channels and their norms for a 7x7 one to 64, and 64 channels to two 1x1 convolutions.
    stem = 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64 + 128) - (49 * 3 * 64 + 2 * 64) + 64 * (64 + 256)
    heads = 4 * (9 * 2048 + 1) * 19 * 16
    assert sum(p.numel() for p in net.parameters()) == 42_500_160 + stem + heads == 65_038_464
