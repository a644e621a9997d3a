"""GFF-Net (Li et al., "Gated Fully Fusion", AAAI 2020, arXiv 1904.01803).

On WiderResNet-38 after network/gffnets.py of lxtGH/DecoupleSegNets, whose network/deepv3.py has it without the
dense pyramid; on ResNet-101 from the paper, as the code of that is not public.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import ASPP, PyramidContext
from .deeplabv3plus import refining_head
from .layers import Conv2d, conv_bn_relu, fcn_head, pre_activated, spatial_size, upsample
from .resnet import DILATED, ResNet
from .wideresnet import WiderResNet


class GFFNetWide(nn.Module):
    """WiderResNet-38 and atrous pooling; maps of 1/2 and 1/8 and the context are fused by gates.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/2, W/2)`; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(
        self,
        classes: int = 19,
        aux: bool = True,  # noqa: ARG002 (as every network is made)
        *,
        dense_pyramid: bool = True,
    ) -> None:
        """A network; `dense_pyramid` says whether one stands between the fusion and the head."""
        super().__init__()
        width = 128
        self.backbone = WiderResNet()
        half, eighth, deep = self.backbone.channels
        self.context = ASPP(deep, 256)
        self.reduce_context = Conv2d(5 * 256, 256, 3, padding=1, bias=False)
        levels = (half, eighth, 256)
        self.laterals = nn.ModuleList(conv_bn_relu(channels, width, 1) for channels in levels)
        self.fusion = GatedFusion(levels, gate_channels=width, in_sequence=True)
        self.pyramid = DensePyramid(width, (3, 6, 9)) if dense_pyramid else None
        self.head = refining_head(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        half, eighth, deep = self.backbone(x)
        maps = [half, eighth, self.reduce_context(self.context(deep))]
        levels = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        size = spatial_size(half)
        fused = [fit(level, size) for level in reversed(self.fusion(maps, levels))]  # (N, 128, H/2, W/2) each
        deepest, *finer = self.pyramid(fused) if self.pyramid else fused
        logits: Tensor = self.head(torch.cat([deepest, fit(levels[-1], size), *finer], dim=1))
        return logits


class GFFNet(nn.Module):
    """PSPNet on ResNet-101 whose four stages are fused by gates, and gathered from the context on to finer maps.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; in training a list with auxiliary
    logits of the third stage behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        width = 256
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED)
        stages = self.backbone.channels
        self.context = PyramidContext(stages[-1], width, kernel=3, padding=1)
        self.laterals = nn.ModuleList(conv_bn_relu(channels, width, 1) for channels in stages)
        self.fusion = GatedFusion([width] * len(stages), gate_channels=1, in_sequence=False)
        self.pyramid = DensePyramid(width, (3, 6, 9, 12), behind=1)
        self.head = refining_head((1 + len(stages)) * width, classes)
        if aux:
            self.aux_head = fcn_head(stages[2], 512, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        stages = self.backbone(x)
        levels = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        fused = self.fusion(levels, levels)
        size = spatial_size(levels[0])
        context = fit(self.context(stages[-1]), size)  # (N, 256, H/4, W/4)
        gathered = self.pyramid([fit(level, size) for level in reversed(fused)], context)
        logits: Tensor = self.head(torch.cat([context, *gathered], dim=1))
        return [logits, self.aux_head(stages[2])] if self.training and hasattr(self, "aux_head") else logits


class GatedFusion(nn.Module):
    """Each level takes from the others what their gates let out, where its own gate is shut.

    x + g x + (1 - g) * (sum of g_i x_i over the other levels), with g = sigmoid(1x1 convolution).
    """

    def __init__(self, channels: Sequence[int], *, gate_channels: int, in_sequence: bool) -> None:
        """A fusion whose gates look at maps of `channels`.

        Args:
            channels: by level.
            gate_channels: 1, or as many as the levels have.
            in_sequence: whether a level sees the levels before it as they are when fused.
        """
        super().__init__()
        self.gates = nn.ModuleList(Conv2d(n, gate_channels, 1) for n in channels)
        self.in_sequence = in_sequence

    def forward(self, seen: Sequence[Tensor], levels: Sequence[Tensor]) -> list[Tensor]:
        """The fused levels, as large as they came.

        Args:
            seen: what the gates look at.
            levels: `(N, C, h, w)` each, of the same size as what its gate looks at.
        """
        gates = [torch.sigmoid(gate(x)) for gate, x in zip(self.gates, seen, strict=True)]
        let_out = [gate * level for gate, level in zip(gates, levels, strict=True)]
        fused: list[Tensor] = []
        for i, (gate, level) in enumerate(zip(gates, levels, strict=True)):
            size = spatial_size(level)
            first, *others = [fit(let_out[j], size) for j in range(len(levels)) if j != i]
            fused.append(level + gate * level + (1 - gate) * sum(others, first))
            if self.in_sequence:
                let_out[i] = gate * fused[i]
        return fused


class DensePyramid(nn.Module):
    """Dilated convolutions from the deepest level on; each looks at its level and at all that came out before."""

    def __init__(self, width: int, dilations: Sequence[int], behind: int = 0) -> None:
        """A pyramid of one level per dilation, with `behind` more maps before the first one."""
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *pre_activated((behind + i + 1) * width, width, 1, bias=True),
                *pre_activated(width, width, 3, dilation=dilation, bias=True),
            )
            for i, dilation in enumerate(dilations)
        )

    def forward(self, levels: Sequence[Tensor], *before: Tensor) -> list[Tensor]:
        """What each level gives; all maps have the same size."""
        given: list[Tensor] = []
        for block, level in zip(self.blocks, levels, strict=True):
            given.append(block(torch.cat([*before, *given, level], dim=1)))
        return given


def fit(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` at `size`, itself where it has it."""
    return x if spatial_size(x) == size else upsample(x, size, align_corners=True)


PAPER = "Li et al., AAAI 2020, arXiv 1904.01803"

NETWORKS = {
    "gffnet_r101": Architecture(
        GFFNet,
        PAPER,
        "80.4 val; 82.3 test, several scales (the paper)",
        Sizes(8),
        note="From the paper: the equation of the fusion with one gate per position, levels of 256 channels, and "
        "PSPNet's context before the dense pyramid. Ours: the blocks of the pyramid and the head are those of "
        "DecoupleSegNets, dilated by 3 to 12, and all of it stands at 1/4.",
    ),
    "gffnet_wr38": Architecture(
        GFFNetWide, PAPER, "", Sizes(8), variants={"fusion_alone": {"dense_pyramid": False}}
    ),
}
