"""PSANet (Zhao et al., ECCV 2018), after hszhao/semseg."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        self.collects = collects
        self.reduce = conv_bn_relu(in_channels, channels, 1)
        self.predict = nn.Sequential(
            *conv_bn_relu(channels, channels, 1), Conv2d(channels, window**2, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        rows, columns = spatial_size(x)
        x = upsample(x, ((rows + 1) // 2, (columns + 1) // 2), align_corners=True)
        scores = scores_between(self.predict(x), self.window)  # (N, its own position, others)
        weights = torch.softmax(scores, dim=2).transpose(1, 2) if self.collects else torch.softmax(scores, dim=1)
        return (x.flatten(2) @ weights).reshape(x.shape)


def scores_between(scores: Tensor, window: int) -> Tensor:
    """What each position says of every other, from what it says of the window around it.

    Args:
        scores: `(N, window * window, H, W)`.
        window: rows and columns, odd.

    Returns:
        `(N, H*W, H*W)`: own position, other position. It is 0, not minus infinity, outside the window: a softmax
        over it gives those positions weight too, as the authors' `psa_mask` does.
    """
    n, _, height, width = scores.shape
    x = scores.reshape(n, window, window, height, width).permute(0, 2, 4, 3, 1)  # (N, window, W, H, window)
    x = from_window(x)  # (N, window columns, W, H, other H)
    x = from_window(x.permute(0, 3, 4, 2, 1))  # (N, H, other H, W, other W)
    return x.permute(0, 1, 3, 2, 4).reshape(n, height * width, height * width)


def from_window(x: Tensor) -> Tensor:
    """Along an axis of length L (at least 2), from offsets to places: `(..., L, window)` to `(..., L, L)`.

    Row i of the last two axes holds the places around i: they move by one from row to row. Read in rows that are
    shorter by one, they stand still.
    """
    length, window = x.shape[-2:]
    offsets = 2 * length - 1
    surplus = (window - offsets) // 2
    x = x[..., surplus : surplus + offsets] if surplus >= 0 else F.pad(x, (-surplus, -surplus))
    steps = x.flatten(-2)[..., length - 1 : length - 1 + length * (offsets - 1)]
    return steps.reshape(*x.shape[:-1], offsets - 1)[..., :length]


NETWORKS = {
    "psanet_r101": Architecture(
        PSANet,
        "Zhao et al., ECCV 2018",
        "78.42 val, crops of 705, single scale; 79.40 several scales (hszhao/semseg); 80.1 test in the paper",
        Sizes(16, 1, least=17),
    ),
}
