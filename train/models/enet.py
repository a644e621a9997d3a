"""ENet (Paszke et al., arXiv 1606.02147), after models/enet.py of davidtvs/PyTorch-ENet, whose weights are public.

The pools that are undone see 2x2 places there, as in the authors' own code (e-lab/ENet-training, train/models, in
Lua); several other ports have overlapping ones of 3x3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.export.ops import MAX_POOL_INDICES, MAX_UNPOOL

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn, spatial_size

Activation = Callable[[], nn.Module]

WINDOWS = (2, 2, 0)
"""Kernel, stride and padding of the pools that are undone."""
DILATIONS = (1, 2, None, 4, 1, 8, None, 16)
"""Of the bottlenecks at 1/8, which the paper calls 2.1 to 2.8 and repeats; None is a 5x5 kernel in two steps."""


class ENet(nn.Module):
    """Shrinks early, looks around at 1/8, and puts what it found back where the pools had their maxima.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H, W)`; it has no auxiliary heads.
    """

    align_corners = False
    """Without effect: the logits have the size of the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        self.stem = Stem(16)
        self.down1 = DownBottleneck(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, dropout=0.01) for _ in range(4)))
        self.down2 = DownBottleneck(64, 128, dropout=0.1)
        self.stage2 = nn.Sequential(*(Bottleneck(128, dilation) for dilation in DILATIONS))
        self.stage3 = nn.Sequential(*(Bottleneck(128, dilation) for dilation in DILATIONS))
        self.up4 = UpBottleneck(128, 64)
        self.stage4 = nn.Sequential(*(Bottleneck(64, activation=nn.ReLU) for _ in range(2)))
        self.up5 = UpBottleneck(64, 16)
        self.stage5 = Bottleneck(16, activation=nn.ReLU)
        self.classify = nn.ConvTranspose2d(16, classes, 3, 2, 1, output_padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (N, 16, H/2, W/2)
        x, places1 = self.down1(x)  # (N, 64, H/4, W/4), (N, 16, H/4, W/4)
        x = self.stage1(x)
        x, places2 = self.down2(x)  # (N, 128, H/8, W/8), (N, 64, H/8, W/8)
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, places2))  # (N, 64, H/4, W/4)
        x = self.stage5(self.up5(x, places1))  # (N, 16, H/2, W/2)
        logits: Tensor = self.classify(x)
        return logits


class Stem(nn.Module):
    """Halves the image, by a convolution and by pooling side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(3, channels - 3, 3, 2, 1, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.out = nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(torch.cat([self.conv(x), self.pool(x)], dim=1))
        return y


class Bottleneck(nn.Module):
    """Adds to its input what a convolution on a quarter of the channels makes of it."""

    def __init__(
        self,
        channels: int,
        dilation: int | None = 1,
        *,
        dropout: float = 0.1,
        activation: Activation = nn.PReLU,
    ) -> None:
        """Of `channels`; without `dilation` the convolution has a 5x5 kernel in two steps."""
        super().__init__()
        width = channels // 4
        self.branch = nn.Sequential(
            conv_bn(channels, width, 1, activation=activation()),
            asymmetric(width, activation) if dilation is None else dilated(width, dilation, activation),
            conv_bn(width, channels, 1, activation=activation()),
            nn.Dropout2d(dropout),
        )
        self.out = activation()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(x + self.branch(x))
        return y


def dilated(channels: int, dilation: int, activation: Activation) -> nn.Sequential:
    """A 3x3 convolution with batch norm and activation."""
    return conv_bn(channels, channels, dilation=dilation, activation=activation())


def asymmetric(channels: int, activation: Activation) -> nn.Sequential:
    """A 5x1 and a 1x5 convolution, each with batch norm and activation."""
    upright = Conv2d(channels, channels, (5, 1), padding=(2, 0), bias=False)
    level = Conv2d(channels, channels, (1, 5), padding=(0, 2), bias=False)
    return nn.Sequential(
        upright, nn.BatchNorm2d(channels), activation(), level, nn.BatchNorm2d(channels), activation()
    )


class DownBottleneck(nn.Module):
    """Pools its input, adds a bottleneck that halves it too, and tells where the pool had its maxima."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        width = in_channels // 4
        self.added = out_channels - in_channels
        self.branch = nn.Sequential(
            nn.Sequential(
                Conv2d(in_channels, width, 2, 2, bias=False),  # conv_bn would pad it
                nn.BatchNorm2d(width),
                nn.PReLU(),
            ),
            conv_bn(width, width, activation=nn.PReLU()),
            conv_bn(width, out_channels, 1, activation=nn.PReLU()),
            nn.Dropout2d(dropout),
        )
        self.out = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.pad(F.max_pool2d(x, *WINDOWS), (0, 0, 0, 0, 0, self.added))  # the new channels start at 0
        return self.out(pooled + self.branch(x)), MAX_POOL_INDICES(x, *WINDOWS)


class UpBottleneck(nn.Module):
    """Undoes a pool, and adds a bottleneck that doubles the size too."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        width = in_channels // 4
        self.shortcut = conv_bn(in_channels, out_channels, 1)
        self.branch = nn.Sequential(
            conv_bn(in_channels, width, 1, activation=nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(width, width, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            conv_bn(width, out_channels, 1),
            nn.Dropout2d(dropout),
        )
        self.out = nn.ReLU()

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        size = [2 * length for length in spatial_size(x)]
        y: Tensor = self.out(MAX_UNPOOL(self.shortcut(x), places, size, *WINDOWS) + self.branch(x))
        return y


NETWORKS = {
    "enet": Architecture(
        ENet,
        "Paszke et al., arXiv 1606.02147",
        "58.3 test of the authors' form (the paper); 59.5 val, 512x1024, of the port's (its save/README.md)",
        Sizes(8),
        note="The authors' own code (e-lab/ENet-training, Lua) has biases, slopes per channel, wider convolutions "
        "where it shrinks and narrower ones where it grows, and activates a branch only once it is added.",
    ),
}
