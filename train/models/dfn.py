"""DFN (Yu et al., CVPR 2018, arXiv 1804.09337) on ResNet-101, after ycszen/TorchSeg."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, ConvBNReLU, conv_bn_relu, global_average, spatial_size, upsample
from .outputs import Outputs
from .resnet import Features, ResNet


class DFN(nn.Module):
    """From the global average down to 1/4, what lies deeper chooses the channels of each stage of the backbone.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; in training Outputs with the
    logits of the levels above, at 1/32, 1/16 and 1/8, behind them, and of the four borders, all at 1/4.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.backbone = ResNet(101, stem="deep")
        *larger, deepest = self.backbone.channels
        self.global_context = ConvBNReLU(deepest, 512, 1)
        self.levels = nn.ModuleList(Level(channels, 512) for channels in (deepest, *reversed(larger)))
        self.heads = nn.ModuleList(head(512, classes) for _ in range(3 if aux else 0))
        self.main_head = head(512, classes)
        if aux:
            self.border = BorderNetwork(self.backbone.channels, 21)
        self._init_weights()

    def forward(self, x: Tensor) -> Tensor | Outputs:
        features = self.backbone(x)
        *coarser, finest = self._smooth(features)
        logits: Tensor = self.main_head(finest)
        if self.training and len(self.heads):
            aux = [predict(level) for predict, level in zip(self.heads, coarser, strict=True)]
            return Outputs([logits, *aux], self.border(features))
        return logits

    def _init_weights(self) -> None:
        """As TorchSeg does: behind most convolutions stands no norm, and what they reduce would grow otherwise."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("backbone."):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")

    def _smooth(self, features: Features) -> list[Tensor]:
        """Features of 512 channels at 1/32, 1/16, 1/8 and 1/4."""
        context = self.global_context(global_average(features[-1]))
        maps = []
        for level, stage in zip(self.levels, reversed(features), strict=True):
            context = level(stage, upsample(context, spatial_size(stage), align_corners=True))
            maps.append(context)
        return maps


class Level(nn.Module):
    """One stage of the backbone, its channels weighed by itself and what lies deeper, refined before and after."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.before = RefinementResidual(in_channels, channels)
        self.attention = ChannelAttention(channels)
        self.after = RefinementResidual(channels, channels)

    def forward(self, stage: Tensor, deeper: Tensor) -> Tensor:
        y: Tensor = self.after(self.attention(self.before(stage), deeper))
        return y


class ChannelAttention(nn.Module):
    """Weighs `x` by what the averages of both maps say, and adds the deeper one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor, deeper: Tensor) -> Tensor:
        averages = global_average(torch.cat([x, deeper], dim=1))  # (N, 2C, 1, 1)
        weights: Tensor = self.weigh(averages.flatten(1))  # (N, C)
        return x * weights[:, :, None, None] + deeper


class RefinementResidual(nn.Module):
    """1x1 convolution, and a residual of two 3x3 ones; `relu` says whether a ReLU ends it."""

    def __init__(self, in_channels: int, channels: int, *, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.reduce = Conv2d(in_channels, channels, 1, bias=False)
        self.refine = nn.Sequential(
            *conv_bn_relu(channels, channels), Conv2d(channels, channels, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        y: Tensor = self.refine(x) + x
        return F.relu(y, inplace=True) if self.relu else y


class BorderNetwork(nn.Module):
    """Borders between classes, from the fine stages to the deep ones; each sum sees one stage more."""

    def __init__(self, stages: tuple[int, ...], channels: int) -> None:
        """A branch of `channels` on stages of so many channels."""
        super().__init__()
        self.before = nn.ModuleList(RefinementResidual(stage, channels) for stage in stages)
        self.after = nn.ModuleList(RefinementResidual(channels, channels) for _ in stages[1:])
        self.heads = nn.ModuleList(head(channels, 1) for _ in stages)

    def forward(self, features: Features) -> list[Tensor]:
        """Logits `(N, 1, H/4, W/4)` of each sum."""
        size = spatial_size(features[0])
        first, *deeper = (refine(stage) for refine, stage in zip(self.before, features, strict=True))
        sums: list[Tensor] = [first]
        for refine, stage in zip(self.after, deeper, strict=True):
            sums.append(refine(sums[-1] + upsample(stage, size, align_corners=True)))
        return [predict(borders) for predict, borders in zip(self.heads, sums, strict=True)]


def head(in_channels: int, classes: int) -> nn.Sequential:
    """A refinement to nine channels per class, and a 1x1 convolution to the classes."""
    return nn.Sequential(RefinementResidual(in_channels, 9 * classes, relu=False), Conv2d(9 * classes, classes, 1))


NETWORKS = {
    "dfn_r101": Architecture(
        DFN,
        "Yu et al., CVPR 2018, arXiv 1804.09337",
        "79.16 val, windows of 800x800, single scale; 80.53 several scales (ycszen/TorchSeg); 79.3 test",
        Sizes(32),
    ),
}
