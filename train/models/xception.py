"""Xception-39, the lightest backbone of BiSeNet (Yu et al., ECCV 2018, arXiv 1808.00897).

After furnace/base_model/xception.py of ycszen/TorchSeg.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv2d, conv_bn_relu


class Xception39(nn.Module):
    """The stages of a narrow Xception, without its classifier.

    Takes `(N, 3, H, W)` and returns the stages' outputs at 1/8, 1/16 and 1/32; their channels are in `channels`.
    """

    channels = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn_relu(3, 8, stride=2), nn.MaxPool2d(3, 2, 1))
        self.layer1 = stage(8, 16, blocks=4)
        self.layer2 = stage(64, 32, blocks=8)
        self.layer3 = stage(128, 64, blocks=4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        return first, second, self.layer3(second)


def stage(in_channels: int, planes: int, blocks: int) -> nn.Sequential:
    """Residual blocks, the first with stride 2."""
    later = (Block(4 * planes, planes, 1) for _ in range(1, blocks))
    return nn.Sequential(Block(in_channels, planes, 2), *later)


class Block(nn.Module):
    """Three separable convolutions and a skip; four times as many channels come out as the inner ones have."""

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            separable(in_channels, planes, stride),
            separable(planes, planes),
            separable(planes, 4 * planes, relu=False),
        )
        self.skip = separable(in_channels, 4 * planes, stride, relu=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.skip(x), inplace=True)


def separable(in_channels: int, out_channels: int, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """3x3 depthwise convolution and 1x1 convolution, with one batch norm behind both."""
    return nn.Sequential(
        Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        *([nn.ReLU(inplace=True)] if relu else []),
    )
