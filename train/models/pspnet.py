"""PSPNet (Zhao et al., CVPR 2017, arXiv 1612.01105), after hszhao/semseg; AAF (Ke et al., ECCV 2018) is one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .context import PyramidPooling
from .layers import fcn_head
from .resnet import DILATED, ResNet


class PSPNet(nn.Module):
    """Features at 1/8 beside their means over regions of four sizes.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`; in training a list with the auxiliary
    logits behind them. At sizes of 8k + 1 the map's corners are the image's: h is (H - 1)/8 + 1.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, depth: int, lxtgh: bool = False) -> None:
        """A network on a ResNet of `depth` layers.

        Args:
            classes: of the logits.
            aux: whether to build the auxiliary head.
            depth: of the ResNet.
            lxtgh: whether in the form of lxtGH/GALD-DGCNet, where the stem's pool rounds up, no ReLU follows the
                means, and the auxiliary head is wider.
        """
        super().__init__()
        self.backbone = ResNet(depth, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED, ceil_pool=lxtgh)
        self.pyramid = PyramidPooling(2048, 512, relu=not lxtgh)
        self.head = fcn_head(2 * 2048, 512, classes)
        if aux:
            self.aux = fcn_head(1024, 512 if lxtgh else 256, classes, bias=lxtgh)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, h, w), (N, 2048, h, w)
        logits: Tensor = self.head(torch.cat([deep, *self.pyramid(deep)], dim=1))
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


PAPER = "Zhao et al., CVPR 2017, arXiv 1612.01105"
SIZES = Sizes(8, 1)

NETWORKS = {
    "pspnet_r50": Architecture(
        PSPNet,
        PAPER,
        "77.30 val, crops of 713, single scale; 78.38 several scales (hszhao/semseg)",
        SIZES,
        arguments={"depth": 50},
        variants={"lxtgh": {"lxtgh": True}},
    ),
    "pspnet_r101": Architecture(
        PSPNet,
        PAPER,
        "78.63 val, crops of 713, single scale; 79.29 several scales (hszhao/semseg); 78.4 test in the paper",
        SIZES,
        arguments={"depth": 101},
        variants={"lxtgh": {"lxtgh": True}},
    ),
    "aaf_r101": Architecture(
        PSPNet,
        "Ke et al., ECCV 2018, arXiv 1803.10335",
        "77.1 test in the paper",
        SIZES,
        arguments={"depth": 101},
        note="The affinity fields are a loss. The authors' TensorFlow code pools by fixed windows, which are "
        "PSPNet's regions at 720x720 alone; here they are so at every size.",
    ),
}
