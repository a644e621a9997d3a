"""PP-LiteSeg-T (Peng et al., arXiv 2204.02681).

After paddleseg/models/pp_liteseg.py and layers/tensor_fusion.py of PaddlePaddle/PaddleSeg, whose checkpoints are
Paddle's own `.pdparams`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import PyramidPooling
from .layers import conv_bn, conv_bn_relu, spatial_size, upsample
from .stdc import STDC1, STDCNet, head


class PPLiteSeg(nn.Module):
    """STDC1, a small pyramid pooling, and three fusions from 1/32 to 1/8 with ever fewer channels.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with the
    auxiliary logits of the fusions at 1/16 and 1/32 behind them.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        # Paddle's average pools leave their padding out of the mean.
        self.backbone = STDCNet(STDC1, pool_counts_padding=False)
        self.context = SimplePyramid(1024, 128)
        self.fuse32 = SpatialFusion(1024, 128, 128)
        self.fuse16 = SpatialFusion(512, 128, 64)
        self.fuse8 = SpatialFusion(256, 64, 32)
        self.head = head(32, 32, classes)
        self.aux_heads = nn.ModuleList([head(64, 64, classes), head(128, 64, classes)] if aux else [])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        eighth, sixteenth, deep = self.backbone(x)  # 256, 512 and 1024 channels
        at_32 = self.fuse32(deep, self.context(deep))  # (N, 128, H/32, W/32)
        at_16 = self.fuse16(sixteenth, at_32)  # (N, 64, H/16, W/16)
        logits: Tensor = self.head(self.fuse8(eighth, at_16))
        if self.training and len(self.aux_heads):
            return [logits, self.aux_heads[0](at_16), self.aux_heads[1](at_32)]
        return logits


class SimplePyramid(nn.Module):
    """SPPM, simple pyramid pooling: average pools of 1, 2 and 4 bins, reduced, resized and added."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pools = PyramidPooling(in_channels, out_channels, (1, 2, 4), bias=True, align_corners=False)
        self.out = conv_bn_relu(out_channels, out_channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        coarse, middle, fine = self.pools(x)
        y: Tensor = self.out(coarse + middle + fine)
        return y


class SpatialFusion(nn.Module):
    """UAFM, unified attention fusion: weighs each position's detail against the context from below."""

    def __init__(self, detail_channels: int, context_channels: int, out_channels: int) -> None:
        super().__init__()
        self.detail = conv_bn_relu(detail_channels, context_channels)
        self.attention = nn.Sequential(conv_bn_relu(4, 2), conv_bn(2, 1), nn.Sigmoid())
        self.out = conv_bn_relu(context_channels, out_channels)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        detail = self.detail(detail)
        context = upsample(context, spatial_size(detail), align_corners=False)
        weight = self.attention(torch.cat([*channel_statistics(detail), *channel_statistics(context)], dim=1))
        y: Tensor = self.out(detail * weight + context * (1 - weight))
        return y


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the channels, `(N, 1, H, W)` each."""
    return x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)


NETWORKS = {
    "pp_liteseg_t": Architecture(
        PPLiteSeg,
        "Peng et al., arXiv 2204.02681",
        "77.04 val, 1024x2048; 76.03 at 768x1536; 73.10 at 512x1024, each with its own training (PaddleSeg)",
        Sizes(128),
    ),
}
