"""STDC1-Seg and STDC2-Seg (Fan et al., CVPR 2021, arXiv 2104.13188).

After nets/stdcnet.py and models/model_stages.py of MichaelFan01/STDC-Seg.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .bisenet import AttentionRefinement, FeatureFusion
from .layers import Conv2d, ConvBNReLU, conv_bn, conv_bn_relu, global_average, spatial_size
from .outputs import Outputs

Blocks = tuple[int, int, int]
"""How many of a backbone's blocks stand at 1/8, 1/16 and 1/32."""

STDC1: Blocks = (2, 2, 2)
STDC2: Blocks = (4, 5, 3)


class STDCSeg(nn.Module):
    """BiSeNet whose spatial path is the backbone's map at 1/8, taught detail in training.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training Outputs with the
    auxiliary logits of the context path (1/8 and 1/16) and the logits of detail (1/8).
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, blocks: Blocks) -> None:
        super().__init__()
        self.context = ContextPath(blocks)
        self.fusion = FeatureFusion(256 + 128, 256, reduction=4)
        self.head = head(256, 256, classes)
        self.aux_heads = nn.ModuleList([head(128, 64, classes), head(128, 64, classes)] if aux else [])
        if aux:
            self.detail_head = head(256, 64, 1)

    def forward(self, x: Tensor) -> Tensor | Outputs:
        detail, *contexts = self.context(x)
        logits: Tensor = self.head(self.fusion(detail, contexts[0]))
        if self.training and len(self.aux_heads):
            aux = [predict(context) for predict, context in zip(self.aux_heads, contexts, strict=True)]
            return Outputs([logits, *aux], [self.detail_head(detail)])
        return logits


class ContextPath(nn.Module):
    """The backbone, and its deeper maps refined from coarse to fine.

    Returns the backbone's map `(N, 256, H/8, W/8)` and contexts of 128 channels at 1/8 and 1/16.
    """

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.backbone = STDCNet(blocks)
        self.whole = ConvBNReLU(1024, 128, 1)
        self.attend32 = AttentionRefinement(1024, 128)
        self.attend16 = AttentionRefinement(512, 128)
        self.refine32 = ConvBNReLU(128, 128)
        self.refine16 = ConvBNReLU(128, 128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, deep = self.backbone(x)
        context = self.attend32(deep) + self.whole(global_average(deep))  # (N, 128, H/32, W/32)
        at_16 = self.refine32(F.interpolate(context, spatial_size(sixteenth), mode="nearest"))
        context = self.attend16(sixteenth) + at_16
        at_8 = self.refine16(F.interpolate(context, spatial_size(eighth), mode="nearest"))
        return eighth, at_8, at_16


def head(in_channels: int, hidden: int, classes: int) -> nn.Sequential:
    """3x3 convolution, and a 1x1 convolution without bias to the classes."""
    return nn.Sequential(*conv_bn_relu(in_channels, hidden), Conv2d(hidden, classes, 1, bias=False))


class STDCNet(nn.Module):
    """The short-term dense concatenation backbone: maps of 256, 512 and 1024 channels at 1/8, 1/16 and 1/32."""

    def __init__(self, blocks: Blocks, *, pool_counts_padding: bool = True) -> None:
        """A backbone; `pool_counts_padding` says whether the pools beside the strided blocks average zeros in."""
        super().__init__()
        self.features = nn.Sequential(conv_bn_relu(3, 32, stride=2), conv_bn_relu(32, 64, stride=2))
        for stage, count in enumerate(blocks):
            width = 256 << stage
            self.features.append(StridedBlock(64 if stage == 0 else width // 2, width, pool_counts_padding))
            self.features.extend(DenseBlock(width, width) for _ in range(count - 1))
        self.ends = [1 + blocks_so_far for blocks_so_far in accumulate(blocks)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in self.ends:
                maps.append(x)
        return tuple(maps)


class DenseBlock(nn.Module):
    """A 1x1 and three 3x3 convolutions in a row, of 1/2, 1/4, 1/8 and 1/8 of the channels; gives all of them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter, eighth = (out_channels // n for n in (2, 4, 8))
        self.reduce = conv_bn_relu(in_channels, half, 1)
        self.grow = nn.ModuleList(
            [conv_bn_relu(half, quarter), conv_bn_relu(quarter, eighth), conv_bn_relu(eighth, eighth)]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self._concatenate(x, x)

    def _concatenate(self, kept: Tensor, x: Tensor) -> Tensor:
        """`kept`, and what the convolutions make of `x` one after another."""
        maps = [kept]
        for conv in self.grow:
            x = conv(x)
            maps.append(x)
        return torch.cat(maps, dim=1)


class StridedBlock(DenseBlock):
    """Halves the size behind the 1x1 convolution: pooled to be kept, strided depthwise to go on."""

    def __init__(self, in_channels: int, out_channels: int, pool_counts_padding: bool) -> None:
        super().__init__(in_channels, out_channels)
        half = out_channels // 2
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=pool_counts_padding)
        self.down = conv_bn(half, half, stride=2, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self._concatenate(self.pool(x), self.down(x))


PAPER = "Fan et al., CVPR 2021, arXiv 2104.13188"

NETWORKS = {
    "stdc1": Architecture(
        STDCSeg,
        PAPER,
        "74.50 val at 768x1536, logits resized to 1024x2048 (MichaelFan01/STDC-Seg); 72.22 at 512x1024; 75.3 test",
        Sizes(32),
        arguments={"blocks": STDC1},
    ),
    "stdc2": Architecture(
        STDCSeg,
        PAPER,
        "77.04 val at 768x1536, logits resized to 1024x2048 (MichaelFan01/STDC-Seg); 74.24 at 512x1024; 76.8 test",
        Sizes(32),
        arguments={"blocks": STDC2},
    ),
}
