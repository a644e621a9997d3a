"""RefineNet (Lin et al., CVPR 2017, arXiv 1611.06612) on ResNet-101, after DrSleep/refinenet-pytorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import spatial_size, upsample
from .resnet import ResNet


class RefineNet(nn.Module):
    """Features at 1/32 refined by those of each finer stage in turn, up to 1/4.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`. As each map is brought to the size
    of the next finer one, any size will do. It has no auxiliary heads.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        self.backbone = ResNet(101)
        first, second, third, deep = self.backbone.channels
        self.deepest = RefineBlock(deep, 512)
        self.finer = nn.ModuleList(
            RefineBlock(channels, 256, below) for channels, below in ((third, 512), (second, 256), (first, 256))
        )
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.Conv2d(256, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, deep = self.backbone(x)
        x = self.deepest(self.dropout(deep))  # (N, 512, H/32, W/32)
        for block, level in zip(self.finer, (self.dropout(third), second, first), strict=True):
            x = block(level, x)  # (N, 256, H/16, W/16), then of 1/8, then of 1/4
        logits: Tensor = self.classify(self.dropout(x))
        return logits


class RefineBlock(nn.Module):
    """Features of one stage, joined with the coarser ones below, pooled in a chain, and convolved again."""

    def __init__(self, in_channels: int, width: int, below: int = 0) -> None:
        """A block; `below` counts the channels of the coarser features, 0 where there are none."""
        super().__init__()
        self.reduce = conv3x3(in_channels, width)
        self.adapt = nn.Sequential(ResidualUnit(width), ResidualUnit(width))
        if below:
            self.own = conv3x3(width, width)
            self.below = conv3x3(below, width)
        self.pool = ChainedPooling(width)
        self.smooth = nn.Sequential(*(ResidualUnit(width) for _ in range(3)))

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        x = self.adapt(self.reduce(x))
        if below is not None:
            x = self.own(x) + upsample(self.below(below), spatial_size(x), align_corners=True)
        y: Tensor = self.smooth(self.pool(F.relu(x)))
        return y


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each behind a ReLU, and a skip; the first alone has a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(width, width, bias=True)
        self.conv2 = conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + y


class ChainedPooling(nn.Module):
    """The sum of what four links of a chain give, and of what goes in; a link pools over 5x5 and convolves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        link = x
        for conv in self.convs:
            link = conv(F.max_pool2d(link, 5, stride=1, padding=2))
            x = x + link
        return x


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size.

    As no norm follows, it starts as torch starts it: He's weights would double the variance with every unit.
    """
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


NETWORKS = {
    "refinenet_r101": Architecture(
        RefineNet,
        "Lin et al., CVPR 2017, arXiv 1611.06612",
        "73.6 test in the paper",
        Sizes(1),
    ),
}
