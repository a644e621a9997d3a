"""DeepLabV3 (Chen et al., 2017, arXiv 1706.05587) on ResNet-101 with a deep stem, after junfu1115/DANet.

That repository is PyTorch-Encoding with DANet added; the paper's own ResNet has a 7x7 stem, but no public PyTorch
weights do.
"""

from __future__ import annotations

from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import ASPP
from .layers import conv_bn_relu, fcn_head
from .resnet import ResNet


class DeepLabV3(nn.Module):
    """Atrous spatial pyramid pooling at 1/8.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with the
    auxiliary logits behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        dilations = ((1,), (1,), (1, 2), (2, 4))
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=dilations)
        self.context = ASPP(2048, 256)
        self.project = nn.Sequential(*conv_bn_relu(5 * 256, 256, 1), nn.Dropout2d(0.5))
        self.head = fcn_head(256, 256, classes)
        if aux:
            self.aux = fcn_head(1024, 256, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, H/8, W/8), (N, 2048, H/8, W/8)
        logits: Tensor = self.head(self.project(self.context(deep)))
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


NETWORKS = {
    "deeplabv3_r101": Architecture(
        DeepLabV3,
        "Chen et al., 2017, arXiv 1706.05587",
        "81.3 test in the paper, with coarse annotations",
        Sizes(8),
    ),
}
