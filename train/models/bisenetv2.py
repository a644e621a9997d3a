"""BiSeNetV2 (Yu et al., IJCV 2021, arXiv 2004.02147), after lib/models/bisenetv2.py of CoinCheung/BiSeNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn, conv_bn_relu, global_average, spatial_size


class BiSeNetV2(nn.Module):
    """A wide shallow branch for detail at 1/8, a thin deep one for semantics to 1/32, each gating the other.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with four
    auxiliary logits of the semantic branch (1/2, 1/4, 1/8 and 1/16 of the image) behind them.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            strided_stage(3, 64, convolutions=2),
            strided_stage(64, 64, convolutions=3),
            strided_stage(64, 128, convolutions=3),
        )
        self.stem = Stem(16)
        self.stage3 = gather_stage(16, 32, blocks=2)
        self.stage4 = gather_stage(32, 64, blocks=2)
        self.stage5 = gather_stage(64, 128, blocks=4)
        self.context = ContextEmbedding(128)
        self.aggregation = GuidedAggregation(128)
        self.head = nn.Sequential(*conv_bn_relu(128, 1024), nn.Dropout(0.1), Conv2d(1024, classes, 1))
        heads = ((16, 4), (32, 8), (64, 16), (128, 32)) if aux else ()
        self.aux_heads = nn.ModuleList(aux_head(channels, stride, classes) for channels, stride in heads)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        detail = self.detail(x)  # (N, 128, H/8, W/8)
        quarter = self.stem(x)  # (N, 16, H/4, W/4)
        eighth = self.stage3(quarter)  # (N, 32, H/8, W/8)
        sixteenth = self.stage4(eighth)  # (N, 64, H/16, W/16)
        deep = self.stage5(sixteenth)  # (N, 128, H/32, W/32)
        logits: Tensor = self.head(self.aggregation(detail, self.context(deep)))
        if self.training and len(self.aux_heads):
            features = (quarter, eighth, sixteenth, deep)
            return [logits, *(head(f) for head, f in zip(self.aux_heads, features, strict=True))]
        return logits


def strided_stage(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    """3x3 convolutions, the first with stride 2."""
    later = (conv_bn_relu(channels, channels) for _ in range(1, convolutions))
    return nn.Sequential(conv_bn_relu(in_channels, channels, stride=2), *later)


class Stem(nn.Module):
    """To 1/4: a strided convolution, then a strided bottleneck beside a max pool."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(3, channels, stride=2)
        self.left = nn.Sequential(
            conv_bn_relu(channels, channels // 2, 1), conv_bn_relu(channels // 2, channels, stride=2)
        )
        self.fuse = conv_bn_relu(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y: Tensor = self.fuse(torch.cat([self.left(x), F.max_pool2d(x, 3, 2, 1)], dim=1))
        return y


def gather_stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    """Gather-and-expansion blocks, the first with stride 2."""
    later = (GatherExpansion(channels, channels, 1) for _ in range(1, blocks))
    return nn.Sequential(GatherExpansion(in_channels, channels, 2), *later)


class GatherExpansion(nn.Module):
    """3x3 convolution, depthwise expansion by 6, projection, and a skip; a stride adds one more depthwise step."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        wide = 6 * in_channels
        relu = nn.ReLU(inplace=True)
        self.gather = conv_bn_relu(in_channels, in_channels)
        self.project = conv_bn(wide, out_channels, 1)
        self.skip: nn.Module
        if stride == 1:
            self.expand = nn.Sequential(conv_bn(in_channels, wide, groups=in_channels, activation=relu))
            self.skip = nn.Identity()
        else:
            self.expand = nn.Sequential(
                conv_bn(in_channels, wide, stride=stride, groups=in_channels),
                conv_bn(wide, wide, groups=wide, activation=relu),
            )
            self.skip = nn.Sequential(
                *conv_bn(in_channels, in_channels, stride=stride, groups=in_channels),
                *conv_bn(in_channels, out_channels, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.project(self.expand(self.gather(x))) + self.skip(x), inplace=True)


class ContextEmbedding(nn.Module):
    """Adds the embedded global average to every position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.embed = conv_bn_relu(channels, channels, 1)
        self.out = conv_bn_relu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.embed(self.norm(global_average(x))) + x)
        return y


class GuidedAggregation(nn.Module):
    """Each branch gates the other, at 1/8 and at 1/32; both results are added at 1/8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail_here = separable(channels)
        self.detail_down = nn.Sequential(*conv_bn(channels, channels, stride=2), nn.AvgPool2d(3, 2, 1))
        self.semantics_up = conv_bn(channels, channels)
        self.semantics_here = separable(channels)
        self.out = conv_bn_relu(channels, channels)

    def forward(self, detail: Tensor, semantics: Tensor) -> Tensor:
        size = spatial_size(detail)
        gate = F.interpolate(torch.sigmoid(self.semantics_up(semantics)), size, mode="nearest")
        gated = self.detail_down(detail) * torch.sigmoid(self.semantics_here(semantics))  # (N, C, H/32, W/32)
        y: Tensor = self.out(self.detail_here(detail) * gate + F.interpolate(gated, size, mode="nearest"))
        return y


def separable(channels: int) -> nn.Sequential:
    """3x3 depthwise convolution with batch norm, and a bare 1x1 convolution."""
    return nn.Sequential(*conv_bn(channels, channels, groups=channels), Conv2d(channels, channels, 1, bias=False))


def aux_head(channels: int, stride: int, classes: int) -> nn.Sequential:
    """Logits at twice the resolution of features at 1/stride."""
    return nn.Sequential(
        *conv_bn_relu(channels, 128),
        nn.Dropout(0.1),
        nn.Upsample(scale_factor=2),
        *conv_bn_relu(128, stride * stride),
        Conv2d(stride * stride, classes, 1),
    )


NETWORKS = {
    "bisenetv2": Architecture(
        BiSeNetV2,
        "Yu et al., IJCV 2021, arXiv 2004.02147",
        "74.95 val, 1024x2048, single scale (CoinCheung/BiSeNet); 72.6 test at 512x1024 in the paper",
        Sizes(32),
    ),
}
