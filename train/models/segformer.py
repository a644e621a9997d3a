"""SegFormer-B0 (Xie et al., NeurIPS 2021, arXiv 2105.15203), after mmseg/models of NVlabs/SegFormer.

Inside the encoder, maps stand channels last, `(N, H, W, C)`, as layer norms and linear layers want them. Linear
layers around a 3x3 convolution are 1x1 convolutions here, so that a map is turned round where it is narrow.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import conv_bn_relu, spatial_size, upsample

WIDTHS = (32, 64, 160, 256)
"""Channels of the stages."""
HEADS = (1, 2, 5, 8)
"""Attention heads of each stage."""
SHRINKS = (8, 4, 2, 1)
"""How much shorter and narrower the map is that each stage attends to."""
DEPTH = 2
"""Blocks of each stage."""
DROP = 0.1
"""Share of frames for which training leaves out the last block's branches; rises from zero at the first."""
EPSILON = 1e-6
"""Of the layer norms in blocks and behind stages; those behind convolutions have PyTorch's 1e-5."""


class SegFormer(nn.Module):
    """A hierarchy of transformers that attend to shrunken maps, and a head of linear layers.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; it has no auxiliary heads.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        blocks = DEPTH * len(WIDTHS)
        drops = [DROP * i / (blocks - 1) for i in range(blocks)]
        self.stages = nn.ModuleList(
            Stage(i, WIDTHS[i - 1] if i else 3, drops[i * DEPTH : (i + 1) * DEPTH]) for i in range(len(WIDTHS))
        )
        self.head = Head(256, classes)
        init_transformer(self)

    def forward(self, x: Tensor) -> Tensor:
        features = []  # at 1/4, 1/8, 1/16 and 1/32
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        logits: Tensor = self.head(features)
        return logits


def init_transformer(net: nn.Module) -> None:
    """Linear layers and 1x1 convolutions start small, others after He; biases at zero."""
    for module in net.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        if isinstance(module, nn.Linear) or module.kernel_size == (1, 1):
            nn.init.trunc_normal_(module.weight, std=0.02)
        else:
            fan_out = module.weight[:, 0].numel() // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def channels_first(x: Tensor) -> Tensor:
    """`(N, H, W, C)` as `(N, C, H, W)`."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """`(N, C, H, W)` as `(N, H, W, C)`."""
    return x.permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Shrinks a map, lets its positions attend, and normalises it; `(N, C, H, W)` in and out."""

    def __init__(self, index: int, in_channels: int, drops: list[float]) -> None:
        """The stage of this index, whose blocks are left out as often as `drops` says."""
        super().__init__()
        width, first = WIDTHS[index], index == 0
        self.embed = Embedding(in_channels, width, kernel=7 if first else 3, stride=4 if first else 2)
        self.blocks = nn.Sequential(*(Block(width, HEADS[index], SHRINKS[index], drop) for drop in drops))
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return channels_first(self.norm(self.blocks(self.embed(x))))


class Embedding(nn.Module):
    """A strided convolution and a layer norm: `(N, C, H, W)` to `(N, H/stride, W/stride, out)`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        # What overlaps keeps the size but for the stride; what does not needs no padding.
        padding = kernel // 2 if kernel > stride else 0
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(channels_last(self.conv(x)))
        return y


class Block(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside a skip; `(N, H, W, C)` in and out."""

    def __init__(self, channels: int, heads: int, shrink: int, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, EPSILON)
        self.attention = Attention(channels, heads, shrink)
        self.norm2 = nn.LayerNorm(channels, EPSILON)
        wide = 4 * channels
        self.perceptron = nn.Sequential(
            nn.Conv2d(channels, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            nn.GELU(),
            nn.Conv2d(wide, channels, 1),
        )
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        y: Tensor = x + self.drop(channels_last(self.perceptron(channels_first(self.norm2(x)))))
        return y


class Attention(nn.Module):
    """Every position attends to all positions of the shrunken map; `(N, H, W, C)` in and out."""

    def __init__(self, channels: int, heads: int, shrink: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.shrink = Embedding(channels, channels, shrink, shrink) if shrink > 1 else None
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(1, 2)  # (N, H W, C)
        context = positions if self.shrink is None else self.shrink(channels_first(x)).flatten(1, 2)
        key, value = self.key_value(context).chunk(2, dim=2)
        query, key, value = (self._by_head(y) for y in (self.query(positions), key, value))
        y = F.scaled_dot_product_attention(query, key, value)  # (N, heads, H W, C / heads)
        z: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return z.view_as(x)

    def _by_head(self, x: Tensor) -> Tensor:
        """`(N, positions, C)` as `(N, heads, positions, C / heads)`."""
        n, positions, channels = x.shape
        return x.reshape(n, positions, self.heads, channels // self.heads).transpose(1, 2)


class DropPath(nn.Module):
    """In training, replaces a branch by zero for a share of the frames, and makes up for it in the others."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        kept = 1 - self.share
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(kept) / kept


class Head(nn.Module):
    """Brings all stages to one width and to 1/4, mixes them, and classifies."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in WIDTHS)
        self.fuse = conv_bn_relu(len(WIDTHS) * width, width, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = spatial_size(features[0])
        embedded = [embed(x) for embed, x in zip(self.embeds, features, strict=True)]
        resized = [upsample(x, size, align_corners=False) for x in embedded[:0:-1]]  # the deepest first
        y: Tensor = self.classifier(self.dropout(self.fuse(torch.cat([*resized, embedded[0]], dim=1))))
        return y


NETWORKS = {
    "segformer_b0": Architecture(
        SegFormer,
        "Xie et al., NeurIPS 2021, arXiv 2105.15203",
        "76.2 val, 1024x2048, windows of 1024 every 768 pixels (the paper)",
        Sizes(32),
    ),
}
