"""DeepLabV3+ (Chen et al., ECCV 2018, arXiv 1802.02611) on ResNets with a deep stem.

After network/deeplabv3_plus.py of lxtGH/SFSegNets, which lxtGH/DecoupleSegNets has too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import ASPP
from .layers import Conv2d, conv_bn_relu, spatial_size, upsample
from .resnet import DILATED, ResNet


class DeepLabV3Plus(nn.Module):
    """Atrous spatial pyramid pooling at 1/8, refined at 1/4 with what the first stage saw.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, depth: int) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        self.backbone = ResNet(depth, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED)
        fine, *_, deep = self.backbone.channels
        self.context = ASPP(deep, 256)
        self.reduce_context = Conv2d(5 * 256, 256, 1, bias=False)
        self.reduce_fine = Conv2d(fine, 48, 1, bias=False)
        self.head = refining_head(256 + 48, classes)

    def forward(self, x: Tensor) -> Tensor:
        fine, *_, deep = self.backbone(x)
        context = self.reduce_context(self.context(deep))  # (N, 256, H/8, W/8)
        context = upsample(context, spatial_size(fine), align_corners=True)
        logits: Tensor = self.head(torch.cat([self.reduce_fine(fine), context], dim=1))  # (N, classes, H/4, W/4)
        return logits


def refining_head(in_channels: int, classes: int) -> nn.Sequential:
    """Two 3x3 convolutions of 256 channels, and a 1x1 convolution without bias to the classes."""
    return nn.Sequential(
        *conv_bn_relu(in_channels, 256), *conv_bn_relu(256, 256), Conv2d(256, classes, 1, bias=False)
    )


PAPER = "Chen et al., ECCV 2018, arXiv 1802.02611"
PUBLISHED = "none known on this backbone; 82.1 test on Xception with coarse labels (the paper)"

NETWORKS = {
    "deeplabv3plus_r50": Architecture(DeepLabV3Plus, PAPER, PUBLISHED, Sizes(8), arguments={"depth": 50}),
    "deeplabv3plus_r101": Architecture(DeepLabV3Plus, PAPER, PUBLISHED, Sizes(8), arguments={"depth": 101}),
}
