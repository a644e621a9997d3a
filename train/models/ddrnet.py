"""DDRNet (Hong et al., arXiv 2101.06085): two branches at 1/8 and down to 1/64 that exchange features.

After segmentation/DDRNet_23*.py of ydhongHIT/DDRNet. PIDNet shares its blocks, stem, head and pooling.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn, conv_bn_relu, pre_activated, spatial_size, upsample
from .resnet import BasicBlock, Bottleneck


class DDRNet(nn.Module):
    """A high branch that stays at 1/8 and a low one, with an exchange at 1/16 and another at 1/32.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with auxiliary
    logits, of the high branch behind the first exchange, behind them.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, width: int, head_width: int) -> None:
        """A network whose stem has `width` channels and whose heads have `head_width`."""
        super().__init__()
        self.stem = quarter_stem(width)
        self.layer1 = basic_blocks(width, width, 2)
        self.layer2 = basic_blocks(width, 2 * width, 2, stride=2)
        self.layer3 = basic_blocks(2 * width, 4 * width, 2, stride=2)
        self.layer4 = basic_blocks(4 * width, 8 * width, 2, stride=2)
        self.layer5 = widening_block(8 * width, 8 * width, stride=2)
        self.high3 = basic_blocks(2 * width, 2 * width, 2)
        self.high4 = basic_blocks(2 * width, 2 * width, 2)
        self.high5 = widening_block(2 * width, 2 * width)
        self.exchange3 = Exchange(2 * width, (4 * width,))
        self.exchange4 = Exchange(2 * width, (4 * width, 8 * width))
        self.context = DAPPM(16 * width, 128, 4 * width)
        self.head = Head(4 * width, head_width, classes)
        if aux:
            self.aux_head = Head(2 * width, head_width, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x = F.relu(self.layer1(self.stem(x)))  # (N, width, H/4, W/4)
        x = F.relu(self.layer2(x))  # (N, 2 width, H/8, W/8)
        low, shared = self.exchange3(self.layer3(x), self.high3(x))  # 4 width at 1/16, 2 width at 1/8
        low, high = self.exchange4(self.layer4(F.relu(low)), self.high4(F.relu(shared)))  # 8 width at 1/32, 1/8
        context = self.context(self.layer5(F.relu(low)))  # (N, 4 width, H/64, W/64)
        high = self.high5(F.relu(high))  # (N, 4 width, H/8, W/8)
        logits: Tensor = self.head(upsample(context, spatial_size(high), align_corners=False) + high)
        if self.training and hasattr(self, "aux_head"):
            return [logits, self.aux_head(shared)]
        return logits


def quarter_stem(width: int) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2, which have a bias beside their batch norm."""
    first, second = (conv_bn_relu(channels, width, stride=2, bias=True) for channels in (3, width))
    return nn.Sequential(*first, *second)


def basic_blocks(in_channels: int, channels: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Residual blocks of two 3x3 convolutions; the ReLU that would end the last one is left to the caller."""
    first = BasicBlock(in_channels, channels, stride)
    later = (BasicBlock(channels, channels, 1, relu=i < blocks - 1) for i in range(1, blocks))
    return nn.Sequential(first, *later)


def widening_block(in_channels: int, channels: int, stride: int = 1) -> Bottleneck:
    """A bottleneck that gives twice `channels` and no ReLU at its end."""
    return Bottleneck(in_channels, channels, stride, expansion=2, relu=False)


class Exchange(nn.Module):
    """Adds to each branch what the other one knows, strided down or resized up."""

    def __init__(self, high_channels: int, low_channels: tuple[int, ...]) -> None:
        """Between branches; `low_channels` are those of the strided convolutions, the low branch's own last."""
        super().__init__()
        *between, low = low_channels
        steps: list[nn.Module] = []
        for width in between:
            steps += conv_bn_relu(high_channels, width, stride=2)
        self.down = nn.Sequential(*steps, *conv_bn(between[-1] if between else high_channels, low, stride=2))
        self.up = conv_bn(low, high_channels, 1)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        up = upsample(self.up(F.relu(low)), spatial_size(high), align_corners=False)
        return low + self.down(F.relu(high)), high + up


class PooledScales(nn.Module):
    """A map and four average pools of it, from a window of 5x5 to the whole, each reduced by a 1x1 convolution."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        pools = (nn.AvgPool2d(5, 2, 2), nn.AvgPool2d(9, 4, 4), nn.AvgPool2d(17, 8, 8), nn.AdaptiveAvgPool2d(1))
        self.own = nn.Sequential(*pre_activated(in_channels, width, 1))
        self.pooled = nn.ModuleList(nn.Sequential(pool, *pre_activated(in_channels, width, 1)) for pool in pools)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(N, width, H, W)` of each scale, that of the map itself first."""
        size = spatial_size(x)
        return [self.own(x), *(upsample(scale(x), size, align_corners=False) for scale in self.pooled)]


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling: each scale is added to what the finer ones gave, and convolved."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.scales = PooledScales(in_channels, width)
        self.process = nn.ModuleList(nn.Sequential(*pre_activated(width, width, 3)) for _ in range(4))
        self.compression = nn.Sequential(*pre_activated(5 * width, out_channels, 1))
        self.shortcut = nn.Sequential(*pre_activated(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        own, *pooled = self.scales(x)
        gathered = [own]
        for process, scale in zip(self.process, pooled, strict=True):
            gathered.append(process(scale + gathered[-1]))
        y: Tensor = self.compression(torch.cat(gathered, dim=1)) + self.shortcut(x)
        return y


class Head(nn.Module):
    """3x3 and 1x1 convolutions to the classes, a batch norm and ReLU before each."""

    def __init__(self, in_channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, hidden, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = Conv2d(hidden, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.bn1(x), inplace=True))
        y: Tensor = self.conv2(F.relu(self.bn2(x), inplace=True))
        return y


PAPER = "Hong et al., arXiv 2101.06085"

NETWORKS = {
    "ddrnet23_slim": Architecture(
        DDRNet,
        PAPER,
        "77.8 val, 1024x2048, single scale (ydhongHIT/DDRNet); 77.4 test",
        Sizes(8),
        arguments={"width": 32, "head_width": 64},
    ),
    "ddrnet23": Architecture(
        DDRNet,
        PAPER,
        "79.5 val, 1024x2048, single scale (ydhongHIT/DDRNet); 79.4 test",
        Sizes(8),
        arguments={"width": 64, "head_width": 128},
    ),
}
