"""DF1-Seg and DF2-Seg (Li et al., "Partial Order Pruning", CVPR 2019, arXiv 1903.03777).

After libs/models/DFSegNet.py and libs/models/backbone/dfnet.py of lxtGH/Fast_Seg.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import PyramidContext
from .layers import Conv2d, conv_bn_relu, fcn_head, spatial_size, upsample
from .resnet import BasicBlock, stage

Stage = tuple[int, int, int]
"""Channels, residual blocks, and the stride of the first one."""

DF1: tuple[Stage, ...] = ((64, 3, 2), (128, 3, 2), (256, 3, 2), (512, 1, 1))
DF1_TAPS = (1, 2, 3)
"""The decoder takes DF1 at 1/16, 1/32 and 1/32."""

DF2: tuple[Stage, ...] = ((64, 2, 2), (128, 1, 1), (128, 10, 2), (256, 1, 1), (256, 4, 2), (512, 2, 1))
DF2_TAPS = (1, 3, 5)
"""The decoder takes DF2 at 1/8, 1/16 and 1/32."""

WIDTH = 128
"""Channels of every map behind the backbone."""


class DFSeg(nn.Module):
    """A backbone pruned for latency, pyramid pooling, and two fusions on the way up.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)` as large as the finest map that the
    decoder takes; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(
        self,
        classes: int = 19,
        aux: bool = True,  # noqa: ARG002 (as every network is made)
        *,
        stages: Sequence[Stage],
        taps: Sequence[int],
    ) -> None:
        """A network whose decoder takes what the stages number `taps` give."""
        super().__init__()
        self.backbone = DFNet(stages, taps)
        fine, middle, deep = self.backbone.channels
        # Fast_Seg pads this 1x1 convolution: the map gets a rim that its weights were trained with.
        self.context = PyramidContext(deep, WIDTH, padding=1)
        self.lateral_deep = Conv2d(WIDTH, WIDTH, 1)
        self.lateral_middle = Conv2d(middle, WIDTH, 1)
        self.lateral_fine = Conv2d(fine, WIDTH, 1)
        self.fuse_middle = Conv2d(2 * WIDTH, WIDTH, 3, padding=1, bias=False)
        self.fuse_fine = Conv2d(2 * WIDTH, WIDTH, 3, padding=1, bias=False)
        self.head = fcn_head(WIDTH, WIDTH, classes, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        fine, middle, deep = self.backbone(x)
        x = self.lateral_deep(self.context(deep))
        x = self.fuse_middle(beside(x, self.lateral_middle(middle)))
        x = self.fuse_fine(beside(x, self.lateral_fine(fine)))
        logits: Tensor = self.head(x)
        return logits


def beside(x: Tensor, finer: Tensor) -> Tensor:
    """Both maps at the size of the finer one, concatenated."""
    return torch.cat([upsample(x, spatial_size(finer), align_corners=True), finer], dim=1)


class DFNet(nn.Module):
    """Stages of residual blocks behind two 3x3 convolutions of stride 2; gives the stages number `taps`."""

    def __init__(self, stages: Sequence[Stage], taps: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn_relu(3, 32, stride=2), *conv_bn_relu(32, 64, stride=2))
        self.stages = nn.ModuleList()
        width = 64
        for channels, blocks, stride in stages:
            layers, width = stage(BasicBlock, width, channels, blocks, stride, (1,))
            self.stages.append(layers)
        self.taps = tuple(taps)
        self.channels = tuple(stages[tap][0] for tap in taps)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        maps = []
        for layers in self.stages:
            x = layers(x)
            maps.append(x)
        return tuple(maps[tap] for tap in self.taps)


PAPER = "Li et al., CVPR 2019, arXiv 1903.03777"

NETWORKS = {
    "dfseg1": Architecture(
        DFSeg, PAPER, "73.0 test, 1024x2048 (the paper)", Sizes(32), arguments={"stages": DF1, "taps": DF1_TAPS}
    ),
    "dfseg2": Architecture(
        DFSeg, PAPER, "74.8 test, 1024x2048 (the paper)", Sizes(32), arguments={"stages": DF2, "taps": DF2_TAPS}
    ),
}
