"""OCNet (Yuan and Wang, arXiv 1809.00916) on ResNet-101, after openseg-group/OCNet.pytorch.

The published code activates no norm between backbone and pyramid, nor in that network's auxiliary head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.export.ops import NON_LOCAL_ATTENTION

from .architecture import Architecture, Sizes
from .attention import in_cells
from .layers import Conv2d, conv_abn, conv_bn, fcn_head, spatial_size, upsample
from .resnet import DILATED, ResNet

WIDTH = 512
"""Channels before and behind the context."""


class OCNet(nn.Module):
    """Object context at 1/8: every position gathers from those that it resembles.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`; in training a list with the auxiliary
    logits behind them. The stem's pool rounds up: h is H/8 + 1 where H is a multiple of 8.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(
        self, classes: int = 19, aux: bool = True, *, context: Literal["base", "pyramid", "asp"] = "base"
    ) -> None:
        super().__init__()
        conv = conv_bn if context == "pyramid" else conv_abn
        dropout = 0.1 if context == "asp" else 0.05
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED, ceil_pool=True)
        self.reduce = conv(2048, WIDTH, bias=True)
        self.context = CONTEXTS[context]()
        self.dropout = nn.Dropout2d(dropout)
        self.classify = Conv2d(WIDTH, classes, 1)
        if aux:
            self.aux = fcn_head(1024, 512, classes, dropout, conv=conv, bias=True)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, h, w), (N, 2048, h, w)
        context = self.context(self.reduce(deep))  # (N, 512, h, w)
        logits: Tensor = self.classify(self.dropout(context))
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


class SelfAttention(nn.Module):
    """Attention whose queries are its keys, within each cell of a grid."""

    def __init__(self, channels: int, embedded: int, values: int, grid: int = 1) -> None:
        super().__init__()
        attend = functools.partial(NON_LOCAL_ATTENTION, scale=embedded**-0.5)
        self.attend = attend if grid == 1 else in_cells(attend, grid)
        self.embed = conv_abn(channels, embedded, 1, bias=True)
        self.value = Conv2d(channels, values, 1)
        self.out = Conv2d(values, channels, 1)
        nn.init.zeros_(self.out.weight)  # at first it answers zero

    def forward(self, x: Tensor) -> Tensor:
        key = self.embed(x)
        y: Tensor = self.out(self.attend(key, key, self.value(x)))
        return y


class BaseContext(nn.Module):
    """Attention over the whole map, beside the map itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention(WIDTH, WIDTH // 2, WIDTH // 2)
        self.fuse = conv_abn(2 * WIDTH, WIDTH, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat([self.attention(x), x], dim=1))
        return y


class PyramidContext(nn.Module):
    """Attention over the whole map and in grids of 4, 9 and 36 cells, beside the map itself, widened."""

    grids = (1, 2, 3, 6)

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(SelfAttention(WIDTH, WIDTH // 2, WIDTH, grid) for grid in self.grids)
        self.widen = conv_abn(WIDTH, len(self.grids) * WIDTH, 1, bias=True)
        self.fuse = conv_abn(2 * len(self.grids) * WIDTH, WIDTH, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat([self.widen(x), *(level(x) for level in self.levels)], dim=1))
        return y


class AtrousContext(nn.Module):
    """Attention over the map at half its size in place of the global average of atrous pyramid pooling."""

    branch = 256
    """Channels of each branch."""
    rates = (12, 24, 36)

    def __init__(self) -> None:
        super().__init__()
        self.reduce = conv_abn(WIDTH, self.branch, bias=True)
        self.attention = SelfAttention(self.branch, self.branch // 2, self.branch)
        self.mix = conv_abn(self.branch, self.branch, 1, bias=True)
        self.branches = nn.ModuleList(
            [
                conv_abn(WIDTH, self.branch, 1),
                *(conv_abn(WIDTH, self.branch, dilation=rate) for rate in self.rates),
            ]
        )
        self.fuse = conv_abn(5 * self.branch, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = self.attention(F.max_pool2d(self.reduce(x), 2))
        context = self.mix(upsample(context, spatial_size(x), align_corners=True))
        y: Tensor = self.fuse(torch.cat([context, *(branch(x) for branch in self.branches)], dim=1))
        return y


CONTEXTS: dict[str, Callable[[], nn.Module]] = {
    "base": BaseContext,
    "pyramid": PyramidContext,
    "asp": AtrousContext,
}

PAPER = "Yuan and Wang, 2018, arXiv 1809.00916"

NETWORKS = {
    "ocnet_base_r101": Architecture(
        OCNet,
        PAPER,
        "79.3 val, 1024x2048, single scale (openseg-group/OCNet.pytorch)",
        Sizes(8),
        arguments={"context": "base"},
    ),
    "ocnet_pyramid_r101": Architecture(OCNet, PAPER, "", Sizes(8, least=48), arguments={"context": "pyramid"}),
    "ocnet_asp_r101": Architecture(
        OCNet,
        PAPER,
        "79.5 val, 1024x2048, single scale; 81.7 test, several scales (openseg-group/OCNet.pytorch)",
        Sizes(8),
        arguments={"context": "asp"},
    ),
}
