"""SAC (Zhang et al., ICCV 2017, "Scale-Adaptive Convolutions for Scene Parsing"), from the paper.

A convolution whose taps move away from its centre, or towards it, by a factor that another convolution reads from
the features at every place. No code is public; the rest is in `NOTE`.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.export.ops import SCALE_ADAPTIVE_CONV

from .architecture import Architecture, Sizes
from .layers import Conv2d, fcn_head
from .resnet import DILATED, ResNet


class SACNet(nn.Module):
    """A dilated ResNet-101 with scale-adaptive convolutions in its last stage and its head.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with the
    auxiliary logits behind them.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED)
        for block in self.backbone.layer4:
            block.conv2 = ScaleAdaptiveConv(512, 512, dilation=4)
        self.head = nn.Sequential(
            ScaleAdaptiveConv(2048, 512),
            nn.BatchNorm2d(512),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            Conv2d(512, classes, 1),
        )
        if aux:
            self.aux = fcn_head(1024, 256, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, H/8, W/8), (N, 2048, H/8, W/8)
        logits: Tensor = self.head(deep)
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


class ScaleAdaptiveConv(Conv2d):
    """A 3x3 convolution that keeps the size. Its dilation is `dilation` times what `scale` says of a place."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, 1, dilation, dilation, bias=False)
        self.scale = nn.Conv2d(in_channels, 1, 3, 1, dilation, dilation)
        assert self.scale.bias is not None
        # Every scale is 1 at first, whatever the features are: softplus of this bias.
        nn.init.zeros_(self.scale.weight)
        nn.init.constant_(self.scale.bias, math.log(math.e - 1))

    def forward(self, x: Tensor) -> Tensor:
        return SCALE_ADAPTIVE_CONV(x, F.softplus(self.scale(x)), self.weight, self.dilation[0])


NOTE = (
    "No code is public, and the paper was read in others' words. Ours: which convolutions adapt (the 3x3 of the "
    "last stage and that of the head), that a scale is softplus of a 3x3 convolution and starts as 1, the head's "
    "512 channels, and PSPNet's auxiliary head."
)

NETWORKS = {
    "sac_r101": Architecture(
        SACNet,
        "Zhang et al., ICCV 2017",
        "78.1 test (the paper)",
        Sizes(8),
        note=NOTE,
    ),
}
