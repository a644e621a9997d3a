import torch
from torch import nn

from roadseg.train.models import build
from roadseg.train.models.refinenet import ChainedPooling, RefineBlock


def test_each_link_of_the_chain_pools_what_the_link_before_it_gave():
    chain = ChainedPooling(1)
    for conv in chain.convs:
        nn.init.dirac_(conv.weight)
        conv.weight.data.mul_(2)
    x = torch.zeros(1, 1, 1, 12)
    x[..., 0] = 1.0
    # Link i gives 2^i, two columns further than the link before it.
    expected = [1 + 30, 30, 30, 28, 28, 24, 24, 16, 16, 0, 0, 0]
    assert chain(x).flatten().tolist() == expected


def test_coarser_features_come_as_their_corners_and_what_lies_between():
    block = RefineBlock(1, 1, below=1)
    for conv in (*block.adapt.modules(), *block.pool.convs, *block.smooth.modules()):
        if isinstance(conv, nn.Conv2d):
            nn.init.zeros_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
    for conv in (block.reduce, block.own, block.below):
        nn.init.dirac_(conv.weight)
    fused = block(torch.full((1, 1, 1, 5), 10.0), torch.tensor([[[[0.0, 4.0, -12.0]]]]))
    assert fused.flatten().tolist() == [10, 12, 14, 6, 0]  # and a ReLU behind the sum


def test_what_the_card_counts_has_the_classes_of_pascal_voc():
    with torch.device("meta"):
        net = build("refinenet_r101", 21)
    resnet = 42_500_160  # torchvision's ResNet-101 without its classifier
    # 3x3 convolutions, in multiples of 256 to 256 channels: reducing, residual units, chains; in the finer blocks
    # also of their own features and of those below.
    deepest = 16 + 5 * 2 * 4 + 4 * 4
    finer = (4 + 2 + 1) + 3 * (5 * 2 + 4 + 1) + (2 + 1 + 1)
    biases = 5 * 512 + 3 * 5 * 256
    expected = resnet + (deepest + finer) * 9 * 256 * 256 + biases + 21 * (9 * 256 + 1)
    assert sum(p.numel() for p in net.parameters()) == expected == 118_052_437
