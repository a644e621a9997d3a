"""DFANet (Li et al., CVPR 2019, arXiv 1904.02216) on XceptionA.

The authors published no code. `DFANet` follows libs/models of lxtGH/Fast_Seg, `HuaifengDFANet` model/dfanet.py of
huaifeng1993/DFANet. Both have about 2 M parameters, the paper's network 7.8 M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn_relu, global_average, spatial_size, upsample


class Features(NamedTuple):
    """What one pass of the backbone gives, `(N, C, h, w)` each."""

    second: Tensor
    """48 channels, at half the size of the pass's input."""
    third: Tensor
    """96 channels, at a quarter."""
    fourth: Tensor
    """192 channels, at an eighth."""
    context: Tensor
    """The fourth, its channels weighed by attention."""


class Form(NamedTuple):
    """What two public forms of the backbone do differently."""

    block: Callable[[int, int, int], nn.Module]
    """Takes channels that come in and go out, and the stride."""
    blocks: tuple[int, int, int]
    """Of each encoder."""
    attention: Callable[[int], nn.Module]
    """Takes channels."""
    own_first: bool
    """Whether a pass's own features come before the earlier pass's, where both are concatenated."""


class DFANet(nn.Module):
    """Three passes of one light backbone, each fed what the last one saw, at 1/4, 1/8 and 1/16.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; in training a list with two
    auxiliary logits, of the first two passes' contexts at 1/4 and 1/8, behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 8, stride=2)
        self.passes = three_passes(Form(Block, (4, 6, 4), ChannelAttention, own_first=False))
        self.reduce_second = nn.ModuleList(conv_bn_relu(48, 32, 1) for _ in range(3))
        self.reduce_context = nn.ModuleList(conv_bn_relu(192, 32, 1) for _ in range(3))
        self.fuse = conv_bn_relu(32, 32, 1)
        self.classifier = Conv2d(32, classes, 1)
        self.aux_heads = nn.ModuleList(aux_head(192, classes) for _ in range(2 if aux else 0))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        passed, contexts = run(self.passes, self.stem(x))
        logits: Tensor = self.classifier(self._decode(passed))
        if self.training and len(self.aux_heads):
            return [logits, *(head(context) for head, context in zip(self.aux_heads, contexts, strict=True))]
        return logits

    def _decode(self, passed: list[Features]) -> Tensor:
        """What all passes saw, `(N, 32, H/4, W/4)`."""
        seconds = [reduce(f.second) for reduce, f in zip(self.reduce_second, passed, strict=True)]
        contexts = [reduce(f.context) for reduce, f in zip(self.reduce_context, passed, strict=True)]
        detail = seconds[0]
        for second in seconds[1:]:
            detail = detail + resized(second, seconds[0])
        fused: Tensor = self.fuse(detail)
        for context in contexts:
            fused = fused + resized(context, seconds[0])
        return fused


class HuaifengDFANet(nn.Module):
    """The other form: smaller encoders of other blocks, and a wider decoder.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 8, stride=2)
        self.passes = three_passes(Form(ProjectedBlock, (3, 6, 3), SqueezeExcitation, own_first=True))
        self.reduce_second = nn.ModuleList(conv_bn_relu(48, 64, 1) for _ in range(3))
        self.reduce_first_context = conv_bn_relu(192, 64, 1)
        self.reduce_later_contexts = conv_bn_relu(192, 64, 1)  # one for both, as in their forward
        self.fuse = conv_bn_relu(64, 64)
        self.classifier = Conv2d(64, classes, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        passed, _ = run(self.passes, self.stem(x))
        seconds = [reduce(f.second) for reduce, f in zip(self.reduce_second, passed, strict=True)]
        detail = seconds[0]  # (N, 64, H/4, W/4)
        for second in seconds[1:]:
            detail = detail + resized(second, detail)
        fused = self.fuse(detail)
        reducers = (self.reduce_first_context, self.reduce_later_contexts, self.reduce_later_contexts)
        for reduce, features in zip(reducers, passed, strict=True):
            fused = fused + resized(reduce(features.context), fused)
        logits: Tensor = self.classifier(fused)
        return logits


def make(classes: int = 19, aux: bool = True, *, huaifeng: bool = False) -> nn.Module:
    """One form or the other."""
    return HuaifengDFANet(classes) if huaifeng else DFANet(classes, aux)


def three_passes(form: Form) -> nn.ModuleList:
    """One over the stem's 8 channels, and two over what a pass before them saw."""
    return nn.ModuleList([Pass(8, form, joined=False), *(Pass(48 + 192, form, joined=True) for _ in range(2))])


def run(passes: Iterable[nn.Module], x: Tensor) -> tuple[list[Features], list[Tensor]]:
    """What each pass over the stem's `x` gives, and the contexts between them, `(N, 192, H/4, W/4)` and H/8."""
    first, *later = passes
    passed: list[Features] = [first(x)]
    contexts: list[Tensor] = []
    for again in later:
        last = passed[-1]
        contexts.append(resized(last.context, last.second))
        passed.append(again(torch.cat([last.second, contexts[-1]], dim=1), last))
    return passed, contexts


def resized(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the rows and columns of `like`."""
    return upsample(x, spatial_size(like), align_corners=True)


def aux_head(channels: int, classes: int) -> nn.Sequential:
    """Logits for training alone."""
    return nn.Sequential(*conv_bn_relu(channels, channels), nn.Dropout2d(0.1), Conv2d(channels, classes, 1))


class Pass(nn.Module):
    """XceptionA without its stem: three encoders, the stages of the network, and attention."""

    def __init__(self, in_channels: int, form: Form, *, joined: bool) -> None:
        """A pass over `in_channels`, which sees an earlier pass's features beside its own if `joined`."""
        super().__init__()
        self.own_first = form.own_first
        second, third, fourth = form.blocks
        self.encode2 = encoder(form.block, in_channels, 48, second)
        self.encode3 = encoder(form.block, 48 + 96 * joined, 96, third)
        self.encode4 = encoder(form.block, 96 + 192 * joined, 192, fourth)
        self.attention = form.attention(192)

    def forward(self, x: Tensor, earlier: Features | None = None) -> Features:
        second = self.encode2(x)
        third = self.encode3(self._join(second, earlier.third) if earlier else second)
        fourth = self.encode4(self._join(third, earlier.fourth) if earlier else third)
        return Features(second, third, fourth, self.attention(fourth))

    def _join(self, own: Tensor, earlier: Tensor) -> Tensor:
        return torch.cat([own, earlier] if self.own_first else [earlier, own], dim=1)


def encoder(
    block: Callable[[int, int, int], nn.Module], in_channels: int, channels: int, blocks: int
) -> nn.Sequential:
    """Residual blocks, the first with stride 2."""
    later = (block(channels, channels, 1) for _ in range(1, blocks))
    return nn.Sequential(block(in_channels, channels, 2), *later)


class Block(nn.Module):
    """Three separable convolutions, a ReLU before each, and a skip; the last one has the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.convolutions = nn.Sequential(
            nn.ReLU(),  # not in place: the skip sees what came in
            *separable(in_channels, inner),
            nn.ReLU(inplace=True),
            *separable(inner, inner),
            nn.ReLU(inplace=True),
            *separable(inner, channels, stride),
        )
        self.skip: nn.Module = nn.Identity()
        if in_channels != channels or stride > 1:
            projection = Conv2d(in_channels, channels, 1, stride, bias=False)
            self.skip = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolutions(x) + self.skip(x)
        return y


def separable(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    """3x3 depthwise convolution and 1x1 convolution, batch norm behind each."""
    return [
        Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class ProjectedBlock(nn.Module):
    """Three separable convolutions, norm and ReLU behind each, and a projection; the first one has the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.convolutions = nn.Sequential(
            *biased_separable(in_channels, inner, stride),
            *biased_separable(inner, inner),
            *biased_separable(inner, channels),
        )
        self.projection = Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolutions(x) + self.projection(x)
        return y


def biased_separable(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    """3x3 depthwise convolution and 1x1 convolution, then batch norm and ReLU."""
    return [
        Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels),
        Conv2d(in_channels, out_channels, 1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class ChannelAttention(nn.Module):
    """Weighs channels by what a linear layer and a convolution make of their averages: ReLU, without a sigmoid."""

    def __init__(self, channels: int, hidden: int = 1000) -> None:
        super().__init__()
        self.embed = Conv2d(channels, hidden, 1)
        self.weigh = Conv2d(hidden, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.norm(self.weigh(self.embed(global_average(x))))
        return x * F.relu(weights, inplace=True)


class SqueezeExcitation(nn.Module):
    """Weighs channels by what two convolutions make of their averages."""

    def __init__(self, channels: int, hidden: int = 1000) -> None:
        super().__init__()
        self.embed = Conv2d(channels, hidden, 1, bias=False)
        self.weigh = Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.weigh(F.relu(self.embed(global_average(x)), inplace=True)).sigmoid()
        return y


NETWORKS = {
    "dfanet": Architecture(
        make,
        "Li et al., CVPR 2019, arXiv 1904.02216",
        "none of this network; 71.3 test, 1024x1024, of the paper's, which no public code builds",
        Sizes(64),
        variants={"huaifeng": {"huaifeng": True}},
    ),
}
