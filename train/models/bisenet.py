"""BiSeNet (Yu et al., ECCV 2018, arXiv 1808.00897) on ResNet-18, ResNet-101 and Xception-39.

Widths, kernels and where activations stand follow the authors' form in ycszen/TorchSeg; module names follow its
key names (`spatial_path`, `context_path`, `global_context`, `arms`, `refines`, `ffm`, `heads`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, ConvBNReLU, conv_bn, global_average, spatial_size, upsample
from .resnet import ResNet
from .xception import Xception39


class BiSeNet(nn.Module):
    """A wide spatial path at 1/8 and a deep context path to 1/32, fused by attention.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with the two
    auxiliary logits (from 1/16 and 1/8) behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(
        self,
        classes: int = 19,
        aux: bool = True,
        *,
        backbone: Callable[[], ResNet | Xception39],
        hidden: int,
        aux_hidden: int,
        coincheung: bool = False,
    ) -> None:
        """A network whose context path is what `backbone` makes.

        Args:
            classes: of the logits.
            aux: whether to build the auxiliary heads.
            backbone: makes the context path.
            hidden: channels inside the main head.
            aux_hidden: channels inside an auxiliary head.
            coincheung: whether in the form of CoinCheung/BiSeNet, which resizes context to the nearest neighbour
                and logits without aligned corners, and attends to the fused features with one convolution.
        """
        super().__init__()
        self.nearest = coincheung
        self.align_corners = not coincheung
        self.context_path = backbone()
        *_, middle, deepest = self.context_path.channels
        self.spatial_path = SpatialPath(128)
        self.global_context = ConvBNReLU(deepest, 128, 1)
        self.arms = nn.ModuleList([AttentionRefinement(deepest, 128), AttentionRefinement(middle, 128)])
        self.refines = nn.ModuleList([ConvBNReLU(128, 128), ConvBNReLU(128, 128)])
        self.ffm = FeatureFusion(256, 256, normalised=coincheung)
        self.heads = nn.ModuleList(Head(128, aux_hidden, classes) for _ in range(2 if aux else 0))
        self.main_head = Head(256, hidden, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        spatial = self.spatial_path(x)  # (N, 128, H/8, W/8)
        *_, eighth, sixteenth, deep = self.context_path(x)
        context = self.global_context(global_average(deep))  # (N, 128, 1, 1), broadcast below
        sixteenth_context = self._refine(0, deep, context, sixteenth)
        eighth_context = self._refine(1, sixteenth, sixteenth_context, eighth)
        logits: Tensor = self.main_head(self.ffm(spatial, eighth_context))
        if self.training and len(self.heads):
            return [logits, self.heads[0](sixteenth_context), self.heads[1](eighth_context)]
        return logits

    def _refine(self, i: int, features: Tensor, context: Tensor, larger: Tensor) -> Tensor:
        """Attend to `features`, add what came from deeper, bring both to the size of `larger`."""
        merged, size = self.arms[i](features) + context, spatial_size(larger)
        resized = F.interpolate(merged, size, mode="nearest") if self.nearest else upsample(merged, size, True)
        y: Tensor = self.refines[i](resized)
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
        self.channel_attention = normalised_attention(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3x3(x)
        weights: Tensor = self.channel_attention(global_average(x))
        return x * weights


class FeatureFusion(nn.Module):
    """Concatenate both paths, mix them, and add what channel attention selects."""

    def __init__(
        self, in_channels: int, out_channels: int, reduction: int = 1, *, normalised: bool = False
    ) -> None:
        """A fusion whose attention has two convolutions, or a `normalised` one alone."""
        super().__init__()
        self.conv_1x1 = ConvBNReLU(in_channels, out_channels, 1)
        attention = normalised_attention if normalised else partial(squeezed_attention, reduction=reduction)
        self.channel_attention = attention(out_channels)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.conv_1x1(torch.cat([spatial, context], dim=1))
        weights: Tensor = self.channel_attention(global_average(x))
        return x + x * weights


def normalised_attention(channels: int) -> nn.Sequential:
    """Weights of channels from their averages `(N, C, 1, 1)`: one convolution with a batch norm."""
    return conv_bn(channels, channels, 1, activation=nn.Sigmoid())


def squeezed_attention(channels: int, reduction: int) -> nn.Sequential:
    """Weights of channels from their averages `(N, C, 1, 1)`: two convolutions, fewer channels between them."""
    return nn.Sequential(
        Conv2d(channels, channels // reduction, 1, bias=False),
        nn.ReLU(inplace=True),
        Conv2d(channels // reduction, channels, 1, bias=False),
        nn.Sigmoid(),
    )


class Head(nn.Module):
    """3x3 convolution, and a 1x1 convolution to the classes."""

    def __init__(self, in_channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.conv_3x3 = ConvBNReLU(in_channels, hidden)
        self.conv_1x1 = Conv2d(hidden, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_1x1(self.conv_3x3(x))
        return y


PAPER = "Yu et al., ECCV 2018, arXiv 1808.00897"

NETWORKS = {
    "bisenet_r18": Architecture(
        BiSeNet,
        PAPER,
        "76.28 val, windows of 1024x1024, single scale; 78.00 several scales (ycszen/TorchSeg)",
        Sizes(32),
        arguments={"backbone": partial(ResNet, 18), "hidden": 64, "aux_hidden": 256},
        variants={"coincheung": {"hidden": 256, "aux_hidden": 64, "coincheung": True}},
    ),
    "bisenet_r101": Architecture(
        BiSeNet,
        PAPER,
        "79.09 val, windows of 1024x1024, single scale; 80.39 several scales (ycszen/TorchSeg); 78.9 test",
        Sizes(32),
        arguments={"backbone": partial(ResNet, 101, stem="deep"), "hidden": 256, "aux_hidden": 256},
    ),
    "bisenet_x39": Architecture(
        BiSeNet,
        PAPER,
        "70.32 val, windows of 1024x1024, single scale; 72.06 several scales (ycszen/TorchSeg)",
        Sizes(32),
        arguments={"backbone": Xception39, "hidden": 64, "aux_hidden": 128},
    ),
}
