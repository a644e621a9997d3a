"""BiSeNet (Yu et al., ECCV 2018, arXiv 1808.00897) on ResNet-18, after the authors' form in TorchSeg.

Widths, kernels and where activations stand follow ycszen/TorchSeg; module names follow its key names
(`spatial_path`, `context_path`, `global_context`, `arms`, `refines`, `ffm`, `heads`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import ConvBNReLU, global_average, init_weights, spatial_size, upsample
from .resnet import ResNet


class BiSeNet(nn.Module):
    """A wide spatial path at 1/8 and a deep context path to 1/32, fused by attention.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with the two
    auxiliary logits (from 1/16 and 1/8) behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.context_path = ResNet(18)
        self.spatial_path = SpatialPath(128)
        self.global_context = ConvBNReLU(512, 128, 1)
        self.arms = nn.ModuleList([AttentionRefinement(512, 128), AttentionRefinement(256, 128)])
        self.refines = nn.ModuleList([ConvBNReLU(128, 128), ConvBNReLU(128, 128)])
        self.ffm = FeatureFusion(256, 256)
        self.heads = nn.ModuleList([Head(128, 256, classes), Head(128, 256, classes)] if aux else [])
        self.main_head = Head(256, 64, classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        spatial = self.spatial_path(x)  # (N, 128, H/8, W/8)
        _, eighth, sixteenth, deep = self.context_path(x)
        context = self.global_context(global_average(deep))  # (N, 128, 1, 1), broadcast below
        sixteenth_context = self._refine(0, deep, context, sixteenth)
        eighth_context = self._refine(1, sixteenth, sixteenth_context, eighth)
        logits: Tensor = self.main_head(self.ffm(spatial, eighth_context))
        if self.training and len(self.heads):
            return [logits, self.heads[0](sixteenth_context), self.heads[1](eighth_context)]
        return logits

    def _refine(self, i: int, features: Tensor, context: Tensor, larger: Tensor) -> Tensor:
        """Attend to `features`, add what came from deeper, bring both to the size of `larger`."""
        merged = upsample(self.arms[i](features) + context, spatial_size(larger), align_corners=True)
        y: Tensor = self.refines[i](merged)
        return y


class SpatialPath(nn.Module):
    """Three stride-2 convolutions that keep detail at 1/8."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv_7x7 = ConvBNReLU(3, 64, 7, stride=2)
        self.conv_3x3_1 = ConvBNReLU(64, 64, 3, stride=2)
        self.conv_3x3_2 = ConvBNReLU(64, 64, 3, stride=2)
        self.conv_1x1 = ConvBNReLU(64, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_1x1(self.conv_3x3_2(self.conv_3x3_1(self.conv_7x7(x))))
        return y


class AttentionRefinement(nn.Module):
    """3x3 convolution whose channels are weighted by their own global average."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_3x3 = ConvBNReLU(in_channels, out_channels)
        self.channel_attention = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3x3(x)
        weights: Tensor = self.channel_attention(global_average(x))
        return x * weights


class FeatureFusion(nn.Module):
    """Concatenate both paths, mix them, and add what channel attention selects."""

    def __init__(self, in_channels: int, out_channels: int, reduction: int = 1) -> None:
        super().__init__()
        squeezed = out_channels // reduction
        self.conv_1x1 = ConvBNReLU(in_channels, out_channels, 1)
        self.channel_attention = nn.Sequential(
            nn.Conv2d(out_channels, squeezed, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.conv_1x1(torch.cat([spatial, context], dim=1))
        weights: Tensor = self.channel_attention(global_average(x))
        return x + x * weights


class Head(nn.Module):
    """3x3 convolution, dropout, and a 1x1 convolution to the classes."""

    def __init__(self, in_channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.conv_3x3 = ConvBNReLU(in_channels, hidden)
        self.dropout = nn.Dropout(0.1)
        self.conv_1x1 = nn.Conv2d(hidden, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_1x1(self.dropout(self.conv_3x3(x)))
        return y


NETWORKS = {
    "bisenet_r18": Architecture(
        BiSeNet,
        "Yu et al., ECCV 2018, arXiv 1808.00897",
        "76.28 val, 1024x2048, single scale (ycszen/TorchSeg)",
        Sizes(32),
    ),
}
