"""DANet (Fu et al., CVPR 2019, arXiv 1809.02983), after junfu1115/DANet."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from roadseg.export.ops import NON_LOCAL_ATTENTION

from .architecture import Architecture, Sizes
from .attention import ResidualAttention, channel_attention
from .layers import Conv2d, conv_bn_relu
from .resnet import ResNet


class DANet(nn.Module):
    """Attention between positions and attention between channels, beside each other at 1/8.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training a list with each
    branch's own logits behind them.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, depth: int) -> None:
        super().__init__()
        dilations = ((1,), (1,), (1, 2), (4, 8, 16))
        self.backbone = ResNet(depth, strides=(1, 2, 1, 1), dilations=dilations)
        self.position = branch(ResidualAttention(512, functools.partial(NON_LOCAL_ATTENTION, scale=1.0)))
        self.channel = branch(ChannelAttention())
        self.classify = classifier(classes)
        if aux:
            self.classify_position = classifier(classes)
            self.classify_channel = classifier(classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, deep = self.backbone(x)  # (N, 2048, H/8, W/8)
        position, channel = self.position(deep), self.channel(deep)  # (N, 512, H/8, W/8)
        logits: Tensor = self.classify(position + channel)
        if self.training and hasattr(self, "classify_position"):
            return [logits, self.classify_position(position), self.classify_channel(channel)]
        return logits


class ChannelAttention(nn.Module):
    """Adds what attention between channels gathers, times a learned factor that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * channel_attention(x) + x


def branch(attention: nn.Module) -> nn.Sequential:
    """An attention between two 3x3 convolutions of 512 channels."""
    return nn.Sequential(conv_bn_relu(2048, 512), attention, conv_bn_relu(512, 512))


def classifier(classes: int) -> nn.Sequential:
    """Dropout of channels, and a 1x1 convolution to the classes."""
    return nn.Sequential(nn.Dropout2d(0.1), Conv2d(512, classes, 1))


PAPER = "Fu et al., CVPR 2019, arXiv 1809.02983"

NETWORKS = {
    "danet_r50": Architecture(DANet, PAPER, "", Sizes(8), arguments={"depth": 50}),
    "danet_r101": Architecture(
        DANet,
        PAPER,
        "79.93 val, single scale (junfu1115/DANet); 81.5 test in the paper",
        Sizes(8),
        arguments={"depth": 101},
    ),
}
