"""Modules that gather context for several networks: pyramid pooling and atrous spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv2d, conv_bn, conv_bn_relu, global_average, spatial_size, upsample


class PyramidPooling(nn.Module):
    """Average pools of several bins, each reduced by a 1x1 convolution and resized (PSPNet, arXiv 1612.01105).

    Returns the pools' features, `(N, reduced, H, W)` each; how they join the input differs from net to net.
    """

    def __init__(
        self,
        in_channels: int,
        reduced: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        *,
        relu: bool = True,
        bias: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.align_corners = align_corners
        make = conv_bn_relu if relu else conv_bn
        self.stages = nn.ModuleList(make(in_channels, reduced, 1, bias=bias) for _ in self.bins)

    def forward(self, x: Tensor) -> list[Tensor]:
        size = spatial_size(x)
        pooled = (
            stage(F.adaptive_avg_pool2d(x, bins)) for stage, bins in zip(self.stages, self.bins, strict=True)
        )
        return [upsample(p, size, self.align_corners) for p in pooled]


class PyramidContext(nn.Module):
    """Pyramid pooling without ReLU, and a convolution over the pools and the map itself: lxtGH's form.

    Takes `(N, in_channels, H, W)` and returns `(N, width, H, W)`.
    """

    def __init__(self, in_channels: int, width: int, *, kernel: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.pyramid = PyramidPooling(in_channels, width, relu=False)
        gathered = in_channels + len(self.pyramid.bins) * width
        self.fuse = nn.Sequential(
            Conv2d(gathered, width, kernel, padding=padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat([*self.pyramid(x), x], dim=1))
        return y


class ASPP(nn.Module):
    """1x1 and dilated 3x3 convolutions beside each other, and the global average (DeepLabV3, arXiv 1706.05587).

    Returns the branches concatenated, the 1x1 first and the average last: `(N, (len(rates) + 2) * width, H, W)`.
    """

    def __init__(self, in_channels: int, width: int = 256, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(in_channels, width, 1),
                *(conv_bn_relu(in_channels, width, 3, dilation=rate) for rate in rates),
            ]
        )
        self.average = conv_bn_relu(in_channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        average = self.average(global_average(x)).expand(-1, -1, *spatial_size(x))
        return torch.cat([*(branch(x) for branch in self.branches), average], dim=1)
