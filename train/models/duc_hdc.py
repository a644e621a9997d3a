"""DUC-HDC (Wang et al., WACV 2018, arXiv 1702.08502) on ResNet-101, after TuSimple/TuSimple-DUC."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d
from .resnet import ResNet

HYBRID = (
    (1,),
    (1,),
    (2, 2, 5, 9, *4 * (1, 2, 5, 9), 1, 2, 5),
    (5, 9, 17),
)
"""Dilations that leave no holes between the places which a stage sees."""

CELL = 4
"""Rows and columns of logits that one place of the stride-8 map gives."""


class DUCHDC(nn.Module):
    """Hybrid dilated convolutions, and logits at 1/2 that are channels at 1/8.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/2, W/2)`. It has no auxiliary heads.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        self.backbone = UnpaddedResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=HYBRID, stride_on="1x1")
        channels = classes * CELL * CELL
        self.heads = nn.ModuleList(
            Conv2d(2048, channels, 3, padding=rate, dilation=rate) for rate in (6, 12, 18, 24)
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        *_, deep = self.backbone(x)  # (N, 2048, H/8, W/8)
        cells = functools.reduce(torch.add, (head(deep) for head in self.heads))  # (N, classes * 16, H/8, W/8)
        return F.pixel_shuffle(cells, CELL)


class UnpaddedResNet(ResNet):
    """A ResNet whose stem's pool has no padding, as MXNet's has none unless it is told."""

    def stem(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.max_pool2d(x, 3, 2)  # (N, 128, H/4 - 1, W/4 - 1)


NETWORKS = {
    "duc_hdc_r101": Architecture(
        DUCHDC,
        "Wang et al., WACV 2018, arXiv 1702.08502",
        "79.1 test, single scale; 80.1 several scales (TuSimple/TuSimple-DUC)",
        Sizes(8),
    ),
}
