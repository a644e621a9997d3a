"""SFNet (Li et al., ECCV 2020, arXiv 2002.10120) and SFNet-Lite (Li et al., IJCV 2023, arXiv 2207.04415).

After network/sfnet_resnet.py and network/nn/operators.py of lxtGH/SFSegNets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import PyramidContext
from .layers import Conv2d, conv_bn_relu, fcn_head, spatial_size, upsample
from .resnet import DILATED, ResNet

WIDTH = 128
"""Channels of every map behind the backbone."""


class SFNet(nn.Module):
    """A feature pyramid whose coarse maps are warped onto the finer ones along a learned flow.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; in training a list with the
    auxiliary logits of the levels 1/4, 1/8 and 1/16 behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        # Dilated as if it stayed at 1/8, and yet strided down to 1/32: the authors' variant "D".
        self.backbone = ResNet(18, stem="deep", dilations=DILATED)
        *finer, deep = self.backbone.channels
        self.context = PyramidContext(deep, WIDTH)
        self.laterals = nn.ModuleList(conv_bn_relu(channels, WIDTH, 1, bias=True) for channels in finer)
        self.alignments = nn.ModuleList(Alignment(WIDTH) for _ in finer)
        self.outputs = nn.ModuleList(conv_bn_relu(WIDTH, WIDTH) for _ in finer)
        self.head = head(WIDTH * len(self.backbone.channels), classes)
        self.aux_heads = nn.ModuleList(fcn_head(WIDTH, WIDTH, classes, bias=True) for _ in finer if aux)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *finer, deep = self.backbone(x)
        x = self.context(deep)  # (N, 128, H/32, W/32)
        merged: list[Tensor] = []
        pyramid = [x]
        for i in reversed(range(len(finer))):
            lateral = self.laterals[i](finer[i])
            x = lateral + self.alignments[i](lateral, x)
            merged.insert(0, x)
            pyramid.insert(0, self.outputs[i](x))
        size = spatial_size(x)
        finest, *coarser = pyramid
        gathered = torch.cat([finest, *(upsample(level, size, align_corners=True) for level in coarser)], dim=1)
        logits: Tensor = self.head(gathered)  # (N, classes, H/4, W/4)
        if self.training and len(self.aux_heads):
            return [logits, *(aux(level) for aux, level in zip(self.aux_heads, merged, strict=True))]
        return logits


class SFNetLite(nn.Module):
    """One alignment from 1/32 to 1/4 that warps both maps, and the map at 1/16 beside its result.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        self.backbone = ResNet(18, stem="deep", dilations=DILATED)
        quarter, _, sixteenth, deep = self.backbone.channels
        self.context = PyramidContext(deep, WIDTH)
        self.fine = conv_bn_relu(quarter, WIDTH, 1, bias=True)
        self.middle = conv_bn_relu(sixteenth, WIDTH, 1, bias=True)
        self.alignment = GatedAlignment(WIDTH)
        self.head = head(2 * WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        quarter, _, sixteenth, deep = self.backbone(x)
        aligned = self.alignment(self.fine(quarter), self.context(deep))  # (N, 128, H/4, W/4)
        middle = upsample(self.middle(sixteenth), spatial_size(aligned), align_corners=True)
        logits: Tensor = self.head(torch.cat([aligned, middle], dim=1))
        return logits


class Alignment(nn.Module):
    """Brings a coarse map to the size of a fine one along the flow that both together give."""

    flows = 1
    """How many are predicted, of two channels each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = channels // 2
        self.reduce_fine = Conv2d(channels, reduced, 1, bias=False)
        self.reduce_coarse = Conv2d(channels, reduced, 1, bias=False)
        # Started as torch does it, flows are of a pixel or so; He's weights would make them dozens.
        self.flow = nn.Conv2d(2 * reduced, 2 * self.flows, 3, padding=1, bias=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return warp(coarse, self.flow(self._compare(fine, coarse)))

    def _compare(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Both maps reduced and beside each other, at the size of `fine`, the coarse one first."""
        coarse = upsample(self.reduce_coarse(coarse), spatial_size(fine), align_corners=True)
        return torch.cat([coarse, self.reduce_fine(fine)], dim=1)


class GatedAlignment(Alignment):
    """Warps both maps, and mixes them by a gate that sees their means and maxima over the channels."""

    flows = 2

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gate = Conv2d(4, 1, 3, padding=1, bias=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        compared = self._compare(fine, coarse)
        coarse_flow, fine_flow = self.flow(compared).chunk(2, dim=1)
        seen = (compared.chunk(2, dim=1)[0], fine)  # the coarse map reduced, the fine one not
        means = [x.mean(dim=1, keepdim=True) for x in seen]
        maxima = [x.amax(dim=1, keepdim=True) for x in seen]
        gate = torch.sigmoid(self.gate(torch.cat([*means, *maxima], dim=1)))
        return warp(coarse, coarse_flow) * gate + warp(fine, fine_flow) * (1 - gate)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample `x` at every position of `flow`, moved by it.

    Positions are computed and looked up in FP32 whatever the type of `x`: in FP16 those at the rim of a map of 512
    columns would be off by a sixteenth of a column.

    Args:
        x: `(N, C, h, w)`.
        flow: `(N, 2, H, W)`, to the right and down, in halves of a pixel: `2 * W / (W - 1)` is a column of W.

    Returns:
        `(N, C, H, W)`; zero beyond the border of `x`.
    """
    rows, columns = spatial_size(flow)
    down, right = (torch.linspace(-1.0, 1.0, n, device=flow.device) for n in (rows, columns))
    base = torch.stack([right.expand(rows, columns), down[:, None].expand(rows, columns)])
    extent = torch.tensor([columns, rows], dtype=torch.float32, device=flow.device)[:, None, None]
    grid = (base + flow.float() / extent).permute(0, 2, 3, 1)
    return F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True).to(x.dtype)


def head(in_channels: int, classes: int) -> nn.Sequential:
    """3x3 and 1x1 convolutions to the classes."""
    return nn.Sequential(*conv_bn_relu(in_channels, WIDTH), Conv2d(WIDTH, classes, 1))


NETWORKS = {
    "sfnet_r18": Architecture(
        SFNet,
        "Li et al., ECCV 2020, arXiv 2002.10120",
        "79.0 val, 1024x2048, single scale (lxtGH/SFSegNets); 78.4 without class-uniform sampling",
        Sizes(32),
    ),
    "sfnet_lite_r18": Architecture(
        SFNetLite,
        "Li et al., IJCV 2023, arXiv 2207.04415",
        "78.8, split not stated (lxtGH/SFSegNets)",
        Sizes(32),
    ),
}
