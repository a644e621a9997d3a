"""Fast-SCNN (Poudel et al., BMVC 2019, arXiv 1902.04502).

Module names are those of the public PyTorch port by Tramac, so that its checkpoints load key by key.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, ConvBNReLU, spatial_size, upsample


class FastSCNN(nn.Module):
    """A learned stem to 1/8, a global branch to 1/32, one fusion, and a light classifier.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with the
    auxiliary logits behind them. Sizes that are multiples of 32 reproduce the paper's maps exactly.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, aux_hidden: int = 32) -> None:
        super().__init__()
        self.learning_to_downsample = LearningToDownsample(32, 48, 64)
        self.global_feature_extractor = GlobalFeatureExtractor(64, (64, 96, 128), 128, expansion=6)
        self.feature_fusion = FeatureFusion(64, 128, 128)
        self.classifier = Classifier(128, classes)
        if aux:
            self.auxlayer = nn.Sequential(
                Conv2d(64, aux_hidden, 3, padding=1, bias=False),
                nn.BatchNorm2d(aux_hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(0.1),
                Conv2d(aux_hidden, classes, 1),
            )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        high = self.learning_to_downsample(x)  # (N, 64, H/8, W/8)
        low = self.global_feature_extractor(high)  # (N, 128, H/32, W/32)
        logits: Tensor = self.classifier(self.feature_fusion(high, low))  # (N, classes, H/8, W/8)
        if self.training and hasattr(self, "auxlayer"):
            return [logits, self.auxlayer(high)]
        return logits


class DepthwiseSeparable(nn.Module):
    """3x3 depthwise, then 1x1, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *depthwise(in_channels, stride),
            Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def depthwise(channels: int, stride: int = 1) -> list[nn.Module]:
    """3x3 depthwise convolution, batch norm, ReLU."""
    return [
        Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]


class LearningToDownsample(nn.Module):
    """Three stride-2 convolutions; the first has no padding, as in the port that the checkpoints come from."""

    def __init__(self, first: int, second: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(3, first, 3, stride=2, padding=0)
        self.dsconv1 = DepthwiseSeparable(first, second, stride=2)
        self.dsconv2 = DepthwiseSeparable(second, out_channels, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dsconv2(self.dsconv1(self.conv(x)))
        return y


class LinearBottleneck(nn.Module):
    """MobileNetV2's block: expand, depthwise, project without activation; a skip where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.skip = stride == 1 and in_channels == out_channels
        self.block = nn.Sequential(
            ConvBNReLU(in_channels, hidden, 1),
            ConvBNReLU(hidden, hidden, 3, stride=stride, groups=hidden),
            Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.skip else y


class PyramidPooling(nn.Module):
    """Average pools of 1, 2, 3 and 6 bins, each reduced and resized back, concatenated behind the input."""

    bins = (1, 2, 3, 6)

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        reduced = in_channels // len(self.bins)
        for i in range(len(self.bins)):
            self.add_module(f"conv{i + 1}", ConvBNReLU(in_channels, reduced, 1))
        self.out = ConvBNReLU(in_channels * 2, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = spatial_size(x)
        pooled = (
            self.get_submodule(f"conv{i + 1}")(F.adaptive_avg_pool2d(x, bins)) for i, bins in enumerate(self.bins)
        )
        y: Tensor = self.out(torch.cat([x, *(upsample(p, size, align_corners=True) for p in pooled)], dim=1))
        return y


class GlobalFeatureExtractor(nn.Module):
    """Nine linear bottlenecks to 1/32, then pyramid pooling."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int], out_channels: int, expansion: int) -> None:
        super().__init__()
        self.bottleneck1 = stage(in_channels, widths[0], expansion, stride=2)
        self.bottleneck2 = stage(widths[0], widths[1], expansion, stride=2)
        self.bottleneck3 = stage(widths[1], widths[2], expansion, stride=1)
        self.ppm = PyramidPooling(widths[2], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ppm(self.bottleneck3(self.bottleneck2(self.bottleneck1(x))))
        return y


def stage(in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Sequential:
    """Three linear bottlenecks; the first one carries the stride."""
    return nn.Sequential(
        LinearBottleneck(in_channels, out_channels, expansion, stride),
        LinearBottleneck(out_channels, out_channels, expansion, 1),
        LinearBottleneck(out_channels, out_channels, expansion, 1),
    )


class FeatureFusion(nn.Module):
    """Adds the upsampled global branch to the stem's features."""

    def __init__(self, high_channels: int, low_channels: int, out_channels: int) -> None:
        super().__init__()
        self.dwconv = ConvBNReLU(low_channels, out_channels, 3, groups=low_channels)
        self.conv_lower_res = nn.Sequential(Conv2d(out_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
        self.conv_higher_res = nn.Sequential(Conv2d(high_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = self.dwconv(upsample(low, spatial_size(high), align_corners=True))
        y: Tensor = self.relu(self.conv_higher_res(high) + self.conv_lower_res(low))
        return y


class Classifier(nn.Module):
    """Two separable convolutions, dropout, and a 1x1 convolution to the classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.dsconv1 = DepthwiseSeparable(channels, channels)
        self.dsconv2 = DepthwiseSeparable(channels, channels)
        self.conv = nn.Sequential(nn.Dropout(0.1), Conv2d(channels, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.dsconv2(self.dsconv1(x)))
        return y


NETWORKS = {
    "fastscnn": Architecture(
        FastSCNN,
        "Poudel et al., BMVC 2019, arXiv 1902.04502",
        "54.84 val, crops of 768 (Tramac/Fast-SCNN-pytorch); 68.0 test in the paper",
        Sizes(32),
        variants={"fast_seg": {"aux_hidden": 64}},
    ),
}
