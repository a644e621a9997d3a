"""ICNet (Zhao et al., ECCV 2018, arXiv 1704.08545) on a whole ResNet-50, after lxtGH/Fast_Seg.

Fast_Seg's libs/models/{ICNet,PSPNet}.py publishes weights of it. The form of lxtGH/SFSegNets (network/icnet.py) is
the variant "sfsegnets".
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import PyramidContext
from .layers import Conv2d, conv_bn, conv_bn_relu, spatial_size, upsample
from .resnet import DILATED, PLAIN, ResNet


class ICNet(nn.Module):
    """Three resolutions of the image in a cascade: the smaller one, the deeper its network.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; in training a list with the
    auxiliary logits of the coarse side of each fusion (1/8 and 1/16) behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(
        self, classes: int = 19, aux: bool = True, *, backbone: dict[str, Any], context_kernel: int
    ) -> None:
        """A network on ResNet-50; `backbone` are arguments of ResNet, `context_kernel` is of the pyramid's end."""
        super().__init__()
        self.whole = nn.Sequential(
            conv_bn_relu(3, 32, stride=2), conv_bn_relu(32, 32, stride=2), conv_bn_relu(32, 64, stride=2)
        )
        self.backbone = ResNet(50, stem="deep", **backbone)
        _, half, _, quarter = self.backbone.channels
        self.context = PyramidContext(quarter, 512, kernel=context_kernel, padding=context_kernel // 2)
        self.reduce_quarter = conv_bn_relu(512, 256, 1)
        self.reduce_half = conv_bn_relu(half, 256, 1)
        self.fuse_half = CascadeFusion(256, 256, 128)
        self.fuse_whole = CascadeFusion(128, 64, 128)
        self.head = Conv2d(128, classes, 1, bias=False)
        self.aux_heads = nn.ModuleList(Conv2d(128, classes, 1, bias=False) for _ in range(2) if aux)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        whole = self.whole(x)  # (N, 64, H/8, W/8)
        half = self.backbone.layer2(self.backbone.layer1(self.backbone.stem(halved(x))))  # (N, 512, H/16, W/16)
        quarter = self.backbone.layer4(self.backbone.layer3(halved(half)))
        quarter = self.reduce_quarter(self.context(quarter))  # (N, 256, H/32, W/32)
        coarse_of_half, fused = self.fuse_half(quarter, self.reduce_half(half))
        coarse_of_whole, fused = self.fuse_whole(fused, whole)
        rows, columns = spatial_size(fused)
        logits: Tensor = self.head(upsample(fused, (2 * rows, 2 * columns), align_corners=True))
        if self.training and len(self.aux_heads):
            coarse = (coarse_of_whole, coarse_of_half)
            return [logits, *(aux(side) for aux, side in zip(self.aux_heads, coarse, strict=True))]
        return logits


class CascadeFusion(nn.Module):
    """Brings a coarse map to the size of a fine one and adds them up.

    Returns the coarse side by itself, which training looks at, and the sum of both.
    """

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.coarse = conv_bn(coarse_channels, channels, dilation=2)
        self.fine = conv_bn(fine_channels, channels, 1)

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.coarse(upsample(coarse, spatial_size(fine), align_corners=True))
        return coarse, F.relu(coarse + self.fine(fine))


def halved(x: Tensor) -> Tensor:
    """`x` at half its size, rounded down."""
    rows, columns = spatial_size(x)
    return upsample(x, (rows // 2, columns // 2), align_corners=True)


NETWORKS = {
    "icnet": Architecture(
        ICNet,
        "Zhao et al., ECCV 2018, arXiv 1704.08545",
        "74.5, split not stated (lxtGH/Fast_Seg); 67.7 val and 69.5 test of the original, half as wide",
        Sizes(32),
        arguments={
            "backbone": {"strides": (1, 2, 1, 1), "dilations": DILATED, "ceil_pool": True},
            "context_kernel": 3,
        },
        # Neither dilated nor kept at 1/32: its deepest map is at 1/128.
        variants={"sfsegnets": {"backbone": {"dilations": PLAIN}, "context_kernel": 1}},
    ),
}
