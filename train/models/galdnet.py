"""GALD-Net (Li et al., BMVC 2019, arXiv 1909.07229), after lxtGH/GALD-DGCNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn_relu, fcn_head, spatial_size, upsample
from .resnet import ResNet

WIDTH = 512
"""Channels of the context."""


class ContextNet(nn.Module):
    """Features at 1/8 beside what a module gathers from them; DGCNet differs in that module alone.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`; in training a list with the auxiliary
    logits behind them. The stem's pool rounds up: h is H/8 + 1 where H is a multiple of 8.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int, depth: int, context: nn.Module, aux: nn.Module | None) -> None:
        super().__init__()
        dilations = ((1,), (1,), (2,), (4, 8, 16))
        self.backbone = ResNet(depth, stem="deep", strides=(1, 2, 1, 1), dilations=dilations, ceil_pool=True)
        self.reduce = conv_bn_relu(2048, WIDTH)
        self.context = context
        self.smooth = conv_bn_relu(WIDTH, WIDTH)
        self.head = nn.Sequential(*conv_bn_relu(2048 + WIDTH, WIDTH), Conv2d(WIDTH, classes, 1))
        self.aux = aux

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, h, w), (N, 2048, h, w)
        context = self.smooth(self.context(self.reduce(deep)))  # (N, 512, h, w)
        logits: Tensor = self.head(torch.cat([deep, context], dim=1))
        return [logits, self.aux(third)] if self.training and self.aux else logits


class GALDNet(ContextNet):
    """Context gathered from everywhere, then weighted position by position."""

    def __init__(self, classes: int = 19, aux: bool = True, *, depth: int) -> None:
        head = fcn_head(1024, 512, classes, bias=True) if aux else None
        super().__init__(classes, depth, GlobalThenLocal(WIDTH), head)


class GlobalThenLocal(nn.Module):
    """Global aggregation at 1/16, and a mask that tells each position how much of it to take."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = shrink(channels)
        self.gather = CompactNonLocal(channels, channels // 2, groups=8)
        self.distribute = nn.Sequential(shrink(channels), shrink(channels), shrink(channels))

    def forward(self, x: Tensor) -> Tensor:
        size = spatial_size(x)
        gathered = upsample(self.gather(self.down(x)), size, align_corners=True)  # (N, C, h, w)
        mask = torch.sigmoid(upsample(self.distribute(gathered), size, align_corners=True))
        return 2 * gathered + gathered * mask


def shrink(channels: int) -> nn.Sequential:
    """Depthwise 3x3 convolution of stride 2 without padding, batch norm, ReLU."""
    return nn.Sequential(
        Conv2d(channels, channels, 3, 2, groups=channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


class CompactNonLocal(nn.Module):
    """Non-local attention between all positions and channels of a group (CGNL, Yue et al., arXiv 1810.13125).

    With a dot product as its kernel, a group's attention is one number times a projection of the group.
    """

    def __init__(self, channels: int, embedded: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.query = Conv2d(channels, embedded, 1, bias=False)
        self.key = Conv2d(channels, embedded, 1, bias=False)
        self.value = Conv2d(channels, embedded, 1, bias=False)
        self.out = Conv2d(embedded, channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        products = (self.key(x) * self.value(x)).flatten(2)  # (N, embedded, H*W)
        products = products.unflatten(1, (self.groups, -1)).flatten(2)  # (N, groups, K)
        terms = products.shape[2]
        # The published code takes the sum, which leaves FP16's range. The norm divides every factor out again, so
        # the mean does as well, if epsilon shrinks with it.
        attention = products.mean(dim=2)[:, :, None, None, None]
        grouped = self.out(self.query(x)).unflatten(1, (self.groups, -1))  # (N, groups, C/groups, H, W)
        attended = (attention * grouped).flatten(1, 2)
        norm = self.norm
        return F.group_norm(attended, self.groups, norm.weight, norm.bias, norm.eps / terms**2) + x


PAPER = "Li et al., BMVC 2019, arXiv 1909.07229"
SIZES = Sizes(8, least=112)  # the mask's third convolution needs 3 rows, thus the map 15

NETWORKS = {
    "galdnet_r50": Architecture(GALDNet, PAPER, "80.8 test (lxtGH/GALD-DGCNet)", SIZES, arguments={"depth": 50}),
    "galdnet_r101": Architecture(GALDNet, PAPER, "81.8 test (lxtGH/GALD-DGCNet)", SIZES, arguments={"depth": 101}),
}
