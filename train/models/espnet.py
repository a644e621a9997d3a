"""ESPNet (Mehta et al., ECCV 2018, arXiv 1803.06815), p = 2 and q = 8, after test/Model.py of sacmehta/ESPNet.

Their files for Cityscapes fit that form. What their train/Model.py trains, and their CamVid file, is the variant
"train": its last convolution sees the shrunken image too.
"""

from __future__ import annotations

from itertools import accumulate
from operator import add

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d

EPSILON = 1e-3
"""Of every batch norm."""


class ESPNet(nn.Module):
    """Pyramids of dilated convolutions to 1/8, fed the shrunken image, and a decoder as wide as there are classes.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H, W)`; it has no auxiliary heads.
    """

    align_corners = False
    """Without effect: the logits have the size of the frame."""

    def __init__(
        self,
        classes: int = 19,
        aux: bool = True,  # noqa: ARG002 (as every network is made)
        *,
        image_to_the_end: bool = False,
    ) -> None:
        """A network for `classes`; `image_to_the_end` makes it that of train/Model.py."""
        super().__init__()
        self.image_to_the_end = image_to_the_end
        self.shrink = nn.AvgPool2d(3, 2, 1)
        self.stem = nn.Sequential(Conv2d(3, 16, 3, 2, 1, bias=False), *norm_prelu(16))
        self.mix1 = nn.Sequential(*norm_prelu(16 + 3))
        self.down2 = DilatedPyramid(16 + 3, 64, stride=2, residual=False)
        self.level2 = nn.Sequential(*(DilatedPyramid(64, 64) for _ in range(2)))
        self.mix2 = nn.Sequential(*norm_prelu(128 + 3))
        self.down3 = DilatedPyramid(128 + 3, 128, stride=2, residual=False)
        self.level3 = nn.Sequential(*(DilatedPyramid(128, 128) for _ in range(8)))
        self.mix3 = nn.Sequential(*norm_prelu(256))

        self.classify3 = nn.Sequential(
            Conv2d(256, classes, 1, bias=False), nn.BatchNorm2d(classes, EPSILON), double(classes)
        )
        self.classify2 = Conv2d(128 + 3, classes, 1, bias=False)
        self.merge2 = nn.Sequential(
            *norm_prelu(2 * classes),
            DilatedPyramid(2 * classes, classes, residual=False),
            double(classes),
            *norm_prelu(classes),
        )
        width = classes + (16 + 3 if image_to_the_end else 16)
        self.merge1 = nn.Sequential(
            Conv2d(width, classes, 3, padding=1, bias=False), *norm_prelu(classes), double(classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        half = self.shrink(x)
        quarter = self.shrink(half)
        stem = self.stem(x)  # (N, 16, H/2, W/2)
        shallow = self.mix1(torch.cat([stem, half], dim=1))  # (N, 19, H/2, W/2)
        down = self.down2(shallow)  # (N, 64, H/4, W/4)
        middle = self.mix2(torch.cat([self.level2(down), down, quarter], dim=1))  # (N, 131, H/4, W/4)
        down = self.down3(middle)  # (N, 128, H/8, W/8)
        deep = self.mix3(torch.cat([down, self.level3(down)], dim=1))  # (N, 256, H/8, W/8)
        merged = self.merge2(torch.cat([self.classify2(middle), self.classify3(deep)], dim=1))  # at H/2, W/2
        seen = shallow if self.image_to_the_end else stem
        logits: Tensor = self.merge1(torch.cat([merged, seen], dim=1))
        return logits


def norm_prelu(channels: int) -> list[nn.Module]:
    """Batch norm and a ReLU whose negative side has a learned slope per channel."""
    return [nn.BatchNorm2d(channels, EPSILON), nn.PReLU(channels)]


def double(channels: int) -> nn.ConvTranspose2d:
    """Learned upsampling by 2."""
    return nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)


class DilatedPyramid(nn.Module):
    """Reduces to a fifth, looks there at five dilations, and sums them hierarchically (the paper's ESP module)."""

    dilations = (1, 2, 4, 8, 16)

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        width = out_channels // len(self.dilations)
        first = out_channels - width * (len(self.dilations) - 1)
        kernel = 1 if stride == 1 else 3
        self.reduce = Conv2d(in_channels, width, kernel, stride, kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            Conv2d(width, first if rate == 1 else width, 3, padding=rate, dilation=rate, bias=False)
            for rate in self.dilations
        )
        self.out = nn.Sequential(*norm_prelu(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        nearest, *farther = (branch(reduced) for branch in self.branches)
        y = torch.cat([nearest, *accumulate(farther, add)], dim=1)
        z: Tensor = self.out(x + y if self.residual else y)
        return z


NETWORKS = {
    "espnet": Architecture(
        ESPNet,
        "Mehta et al., ECCV 2018, arXiv 1803.06815",
        "60.34 test, 512x1024 (the paper)",
        Sizes(8),
        variants={"train": {"image_to_the_end": True}},
    ),
}
