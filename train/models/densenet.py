"""Densely connected networks (Huang et al., CVPR 2017, arXiv 1608.06993) as feature extractors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import Conv2d, pre_activated


class Shape(NamedTuple):
    """What tells one depth from another."""

    growth: int
    """Channels that each layer adds."""
    stem: int
    """Channels of the first convolution."""
    blocks: tuple[int, int, int, int]
    """Layers per block."""


SHAPES = {121: Shape(32, 64, (6, 12, 24, 16)), 161: Shape(48, 96, (6, 12, 36, 24))}
"""By depth."""


class DenseNet(nn.Module):
    """Four dense blocks, each with a transition behind it that halves its channels.

    Takes `(N, 3, H, W)` and returns the last transition's output, normalised: `(N, channels, h, w)`.
    """

    def __init__(
        self,
        depth: int,
        *,
        pools: tuple[bool, bool, bool, bool],
        dilations: tuple[int, int, int, int] = (1, 1, 1, 1),
    ) -> None:
        """A network of `depth` layers.

        Args:
            depth: key of SHAPES.
            pools: whether each transition halves the map; the stem brings it to a quarter.
            dilations: of each block's 3x3 convolutions.
        """
        super().__init__()
        growth, width, blocks = SHAPES[depth]
        self.stem = nn.Sequential(
            Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for layers, pool, dilation in zip(blocks, pools, dilations, strict=True):
            self.blocks.append(
                nn.Sequential(*(DenseLayer(width + i * growth, growth, dilation) for i in range(layers)))
            )
            width += layers * growth
            halving = [nn.AvgPool2d(2)] if pool else []
            self.transitions.append(nn.Sequential(*pre_activated(width, width // 2, 1), *halving))
            width //= 2
        self.norm = nn.BatchNorm2d(width)
        self.channels = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            x = transition(block(x))
        y: Tensor = self.norm(x)
        return y


class DenseLayer(nn.Module):
    """A bottleneck to 4 x growth channels and a 3x3 convolution; what it gives stands behind its input."""

    def __init__(self, in_channels: int, growth: int, dilation: int) -> None:
        super().__init__()
        hidden = 4 * growth
        self.convolutions = nn.Sequential(
            *pre_activated(in_channels, hidden, 1), *pre_activated(hidden, growth, 3, dilation=dilation)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.convolutions(x)], dim=1)
