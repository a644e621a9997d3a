"""PSANet (Zhao et al., ECCV 2018), after hszhao/semseg."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roadseg.export.ops import PSA_COLLECT, PSA_DISTRIBUTE

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn_relu, fcn_head, spatial_size, upsample
from .resnet import DILATED, ResNet


class PSANet(nn.Module):
    """Features at 1/8 beside what every position collects from the others and what these distribute to it.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`; in training a list with the auxiliary
    logits behind them. At sizes of 16k + 1 both maps' corners are the image's: h is (H - 1)/8 + 1.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, window: int = 89) -> None:
        """A network on ResNet-101.

        Args:
            classes: of the logits.
            aux: whether to build the auxiliary head.
            window: odd; rows and columns that a position's attention covers at 1/16, itself in the middle. The
                authors' is what crops of 705 ask for.
        """
        super().__init__()
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED)
        self.collect = PointwiseAttention(2048, 512, window, collects=True)
        self.distribute = PointwiseAttention(2048, 512, window, collects=False)
        self.project = conv_bn_relu(2 * 512, 2048, 1)
        self.head = fcn_head(2 * 2048, 512, classes)
        if aux:
            self.aux = fcn_head(1024, 256, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, h, w), (N, 2048, h, w)
        context = self.project(torch.cat([self.collect(deep), self.distribute(deep)], dim=1))
        context = upsample(context, spatial_size(deep), align_corners=True)  # (N, 2048, h, w)
        logits: Tensor = self.head(torch.cat([deep, context], dim=1))
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


class PointwiseAttention(nn.Module):
    """Positions at 1/16 exchange features by weights that each predicts for the window around it.

    Where it collects, a position says how much it takes of the others; else, how much it gives to them.
    """

    def __init__(self, in_channels: int, channels: int, window: int, *, collects: bool) -> None:
        super().__init__()
        self.window = window
        self.weigh = PSA_COLLECT if collects else PSA_DISTRIBUTE
        self.reduce = conv_bn_relu(in_channels, channels, 1)
        self.predict = nn.Sequential(
            *conv_bn_relu(channels, channels, 1), Conv2d(channels, window**2, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        rows, columns = spatial_size(x)
        x = upsample(x, ((rows + 1) // 2, (columns + 1) // 2), align_corners=True)
        weights = self.weigh(self.predict(x), self.window)  # (N, from, to)
        return (x.flatten(2) @ weights).reshape(x.shape)


NETWORKS = {
    "psanet_r101": Architecture(
        PSANet,
        "Zhao et al., ECCV 2018",
        "78.42 val, crops of 705, single scale; 79.40 several scales (hszhao/semseg); 80.1 test in the paper",
        Sizes(16, 1, least=17),
    ),
}
