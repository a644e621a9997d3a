"""CCNet (Huang et al., ICCV 2019, arXiv 1811.11721) on ResNet-101, after speedinghzl/CCNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roadseg.export.ops import CRISS_CROSS_ATTENTION

from .architecture import Architecture, Sizes
from .attention import ResidualAttention
from .layers import conv_abn, fcn_head
from .resnet import DILATED, ResNet


class CCNet(nn.Module):
    """Criss-cross attention at 1/8, twice with the same weights, so that every position hears of every other.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`; in training a list with the auxiliary
    logits behind them. The stem's pool rounds up: h is H/8 + 1 where H is a multiple of 8.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED, ceil_pool=True)
        self.reduce = conv_abn(2048, 512)
        self.attention = ResidualAttention(512, CRISS_CROSS_ATTENTION)
        self.smooth = conv_abn(512, 512)
        self.head = fcn_head(2048 + 512, 512, classes, conv=conv_abn)
        if aux:
            self.aux = fcn_head(1024, 512, classes, conv=conv_abn, bias=True)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, h, w), (N, 2048, h, w)
        context = self.attention(self.attention(self.reduce(deep)))  # (N, 512, h, w)
        logits: Tensor = self.head(torch.cat([deep, self.smooth(context)], dim=1))
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


NETWORKS = {
    "ccnet_r101": Architecture(
        CCNet,
        "Huang et al., ICCV 2019, arXiv 1811.11721",
        "79.74 val, 1024x2048, single scale; 80.00 with OHEM (speedinghzl/CCNet)",
        Sizes(8),
    ),
}
