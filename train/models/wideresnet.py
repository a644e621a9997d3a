"""WiderResNet-38 (Wu et al., arXiv 1611.10080) as mapillary/inplace_abn trained it, dilated for segmentation.

After network/wider_resnet.py of lxtGH/DecoupleSegNets ("A2", which pools twice and then strides).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv2d, pre_activated

Stage = tuple[int, tuple[int, ...], int, int, float]
"""Blocks, channels of each convolution, stride of the first block, dilation, and dropout."""

WIDER38: tuple[Stage, ...] = (
    (3, (128, 128), 1, 1, 0.0),
    (3, (256, 256), 1, 1, 0.0),
    (6, (512, 512), 2, 1, 0.0),
    (3, (512, 1024), 1, 2, 0.0),
    (1, (512, 1024, 2048), 1, 4, 0.3),
    (1, (1024, 2048, 4096), 1, 4, 0.5),
)


class WiderResNet(nn.Module):
    """Few blocks of many channels, activated before each convolution.

    Takes `(N, 3, H, W)` and returns `(N, 128, H/2, W/2)`, `(N, 1024, H/8, W/8)` and `(N, 4096, H/8, W/8)`: what
    the first, the fourth and the last stage give. Nothing is activated behind a stage.
    """

    channels = (128, 1024, 4096)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2d(3, 64, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        width = 64
        for blocks, channels, stride, dilation, dropout in WIDER38:
            first = Block(width, channels, stride, dilation, dropout)
            width = channels[-1]
            later = (Block(width, channels, 1, dilation, dropout) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *later))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half: Tensor = self.stages[0](F.max_pool2d(self.stem(x), 3, 2, 1))
        x = self.stages[1](F.max_pool2d(half, 3, 2, 1))  # (N, 256, H/4, W/4)
        third, fourth, fifth, sixth = self.stages[2:]
        eighth = fourth(third(x))
        return half, eighth, sixth(fifth(eighth))


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of three, behind a norm and ReLU, and a skip around all of it.

    The skip takes the activated map where it is projected, and the map itself where it is not.
    """

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], stride: int, dilation: int, dropout: float
    ) -> None:
        super().__init__()
        first, *_, last = channels
        self.norm = nn.BatchNorm2d(in_channels)
        if len(channels) == 2:
            layers = [
                Conv2d(in_channels, first, 3, stride, dilation, dilation, bias=False),
                *pre_activated(first, last, 3, dilation=dilation),
            ]
        else:
            middle = channels[1]
            norm, relu, convolution = pre_activated(middle, last, 1)
            layers = [
                Conv2d(in_channels, first, 1, stride, bias=False),
                *pre_activated(first, middle, 3, dilation=dilation),
                norm,
                relu,
                nn.Dropout2d(dropout),
                convolution,
            ]
        self.convs = nn.Sequential(*layers)
        same = stride == 1 and in_channels == last
        self.project = None if same else Conv2d(in_channels, last, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm(x), inplace=True)
        skip = x if self.project is None else self.project(activated)
        y: Tensor = self.convs(activated) + skip
        return y
