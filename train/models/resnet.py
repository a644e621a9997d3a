"""Residual networks (He et al., CVPR 2016, arXiv 1512.03385) as feature extractors.

Key names are torchvision's; the deep stem's are those of Encoding and its many heirs (`conv1.{0,1,3,4,6}`, `bn1`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv2d

Features = tuple[Tensor, Tensor, Tensor, Tensor]
"""What the four stages give."""

PLAIN = ((1,), (1,), (1,), (1,))
"""Dilations of a network for classification."""
DILATED = ((1,), (1,), (2,), (4,))
"""Dilations that go with an output stride of 8."""

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Residual blocks per stage by depth."""
BASIC = (18, 34)
"""Depths whose blocks are two 3x3 convolutions; the others have bottlenecks."""


class ResNet(nn.Module):
    """The four stages of a residual network, without its classifier.

    Takes `(N, 3, H, W)` and returns the stages' outputs; their channels are in `channels`.
    """

    def __init__(
        self,
        depth: int,
        *,
        stem: Literal["plain", "deep"] = "plain",
        stem_channels: int = 128,
        strides: tuple[int, int, int, int] = (1, 2, 2, 2),
        dilations: Sequence[Sequence[int]] = PLAIN,
        ceil_pool: bool = False,
        stride_on: Literal["3x3", "1x1"] = "3x3",
    ) -> None:
        """A network of `depth` layers.

        Args:
            depth: key of BLOCKS.
            stem: one 7x7 convolution, or three 3x3 ones.
            stem_channels: of the deep stem's last convolution; the others have half of it.
            strides: of each stage's first block; (1, 2, 1, 1) gives an output stride of 8.
            dilations: of the (second) 3x3 convolution, per stage and block; a stage's last one repeats.
            ceil_pool: whether the stem's pool rounds its size up: an even map becomes n/2 + 1 long.
            stride_on: which convolution of a bottleneck carries the stride ("1x1" is Caffe's way).
        """
        super().__init__()
        deep = stem == "deep"
        width = stem_channels if deep else 64
        self.conv1 = deep_stem(width) if deep else Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.ceil_pool = ceil_pool
        block = BasicBlock if depth in BASIC else partial(Bottleneck, stride_on=stride_on)
        stages: list[nn.Sequential] = []
        self.channels: tuple[int, ...] = ()
        for i, blocks in enumerate(BLOCKS[depth]):
            layers, width = stage(block, width, 64 << i, blocks, strides[i], dilations[i])
            stages.append(layers)
            self.channels += (width,)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def stem(self, x: Tensor) -> Tensor:
        """What stands before the first stage, `(N, C, H/4, W/4)`."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.max_pool2d(x, 3, 2, 1, ceil_mode=self.ceil_pool)

    def forward(self, x: Tensor) -> Features:
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)


def stage(
    block: Callable[..., BasicBlock | Bottleneck],
    in_channels: int,
    planes: int,
    blocks: int,
    stride: int,
    rates: Sequence[int],
) -> tuple[nn.Sequential, int]:
    """Residual blocks of one width, and their channels; the first has the stride, the last of `rates` repeats."""
    first = block(in_channels, planes, stride, rates[0])
    width = first.out_channels
    later = (block(width, planes, 1, rates[min(i, len(rates) - 1)]) for i in range(1, blocks))
    return nn.Sequential(first, *later), width


def deep_stem(channels: int) -> nn.Sequential:
    """Three 3x3 convolutions in place of the 7x7, the first with stride 2; the last one's norm is the caller's."""
    half = channels // 2
    return nn.Sequential(
        Conv2d(3, half, 3, 2, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        Conv2d(half, half, 3, 1, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        Conv2d(half, channels, 3, 1, 1, bias=False),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, one strided and one dilated, and a skip; `relu` says whether a ReLU ends it."""

    def __init__(
        self, in_channels: int, planes: int, stride: int, dilation: int = 1, *, relu: bool = True
    ) -> None:
        super().__init__()
        self.out_channels = planes
        self.relu = relu
        self.conv1 = Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = projection(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        skip = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(y)) + skip
        return F.relu(y, inplace=True) if self.relu else y


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a skip; `expansion` times as many channels come out as the 3x3 has."""

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        dilation: int = 1,
        stride_on: str = "3x3",
        *,
        expansion: int = 4,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels = expansion * planes
        self.relu = relu
        outer, inner = (1, stride) if stride_on == "3x3" else (stride, 1)
        self.conv1 = Conv2d(in_channels, planes, 1, outer, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = Conv2d(planes, planes, 3, inner, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = Conv2d(planes, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.downsample = projection(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        skip = x if self.downsample is None else self.downsample(x)
        y = self.bn3(self.conv3(y)) + skip
        return F.relu(y, inplace=True) if self.relu else y


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """1x1 convolution of the skip where the block changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
