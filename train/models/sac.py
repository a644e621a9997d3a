"""SAC (Zhang et al., ICCV 2017, "Scale-Adaptive Convolutions for Scene Parsing"), from the paper.

A convolution whose taps move away from its centre, or towards it, by a factor that another convolution reads from
the features at every place. No code is public; the rest is in `NOTE`.
"""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        return scale_adaptive_conv(x, self.weight, F.softplus(self.scale(x)), self.dilation[0])


def scale_adaptive_conv(x: Tensor, weight: Tensor, scales: Tensor, dilation: int) -> Tensor:
    """Convolve 3x3 with a dilation of its own at every place.

    At place p it is the sum over the taps k, rows and columns from -1 to 1, of weight[k] times what `x` is at
    p + scales[p] * dilation * k: bilinear between four places, and zero beyond the border. Where every scale is 1
    this is the dilated convolution.

    Args:
        x: `(N, C, h, w)`.
        weight: `(D, C, 3, 3)`.
        scales: `(N, 1, h, w)`, positive.
        dilation: of scale 1.

    Returns:
        `(N, D, h, w)`.
    """
    h, w = x.shape[2:]
    # Places as grid_sample wants them: -1 and 1 are the outer borders of the first and the last cell.
    columns = (2 * torch.arange(w, device=x.device) + 1) / w - 1
    rows = (2 * torch.arange(h, device=x.device) + 1) / h - 1
    steps = 2 * dilation * scales[:, 0].float()  # (N, h, w)
    y = F.conv2d(x, weight[:, :, 1:2, 1:2])
    for i, j in product(range(3), range(3)):
        if (i, j) != (1, 1):
            grid = torch.stack([columns + (j - 1) / w * steps, rows[:, None] + (i - 1) / h * steps], dim=-1)
            seen = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            y = y + F.conv2d(seen.to(x.dtype), weight[:, :, i : i + 1, j : j + 1])
    return y


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
