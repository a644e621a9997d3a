"""DSSPN (Liang et al., CVPR 2018, arXiv 1803.06067), from the paper: no code is public.

Classes are the leaves of a tree of concepts, and every inner concept is a neuron: a block of its own, which sees
what its ancestors made of the features and tells its children apart. The rest is in `NOTE`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn, conv_bn_relu, fcn_head
from .resnet import DILATED, ResNet

CITYSCAPES_CATEGORIES = (2, 3, 3, 2, 1, 2, 6)
"""Classes of flat, construction, object, nature, sky, human and vehicle, as cityscapesScripts' labels.py has them
in the order of train ids."""
WIDTH = 48
"""Channels that a neuron hands on."""


class DSSPN(nn.Module):
    """A dilated ResNet-101 under a neuron for the root and one for each category of several classes.

    Takes normalised `(N, 3, H, W)` and returns `(N, classes, H/8, W/8)`; in training a list with the auxiliary
    logits behind it. The logits are the logarithms of probabilities: of the category, times that of the class
    within it. Cross-entropy on them thus teaches a category's neuron at pixels of that category alone.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        self.categories = CITYSCAPES_CATEGORIES if classes == sum(CITYSCAPES_CATEGORIES) else (classes,)
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED)
        self.reduce = conv_bn_relu(2048, 256)
        self.root = Neurons(256, [len(self.categories)])
        self.inner = Neurons(256 + WIDTH, [count for count in self.categories if count > 1])
        if aux:
            self.aux = fcn_head(1024, 256, classes)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, H/8, W/8), (N, 2048, H/8, W/8)
        x = self.reduce(deep)
        evolved, (categories,) = self.root(x)
        _, within = self.inner(torch.cat([x, evolved], dim=1))
        inner = iter(within)
        logits = torch.cat(
            [
                category + next(inner) if count > 1 else category
                for category, count in zip(categories.split(1, dim=1), self.categories, strict=True)
            ],
            dim=1,
        )
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


class Neurons(nn.Module):
    """Neurons that see the same features, side by side as groups of channels."""

    def __init__(self, in_channels: int, children: list[int]) -> None:
        """A neuron for each of `children`, which counts the concepts that it tells apart."""
        super().__init__()
        count = len(children)
        relu = nn.ReLU(inplace=True)
        self.evolve = nn.Sequential(
            conv_bn_relu(in_channels, count * 4 * WIDTH, 1),
            conv_bn(count * 4 * WIDTH, count * WIDTH, groups=count, activation=relu),
        )
        self.predict = nn.ModuleList(Conv2d(WIDTH, concepts, 1) for concepts in children)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the neurons make of `x`, and by neuron the logarithms of its children's probabilities."""
        evolved = self.evolve(x)
        parts = evolved.split(WIDTH, dim=1)
        return evolved, [predict(part).log_softmax(1) for predict, part in zip(self.predict, parts, strict=True)]


NOTE = (
    "No code is public, and the paper was read in others' words. Ours: the tree (Cityscapes' seven categories; "
    "with another number of classes they all stand under one), 48 channels per neuron behind 192, 256 channels "
    "below, the logits as logarithms of products along a path, and PSPNet's auxiliary head. All neurons run at "
    "inference; in training the pixels choose which of them learn."
)

NETWORKS = {
    "dsspn_r101": Architecture(
        DSSPN,
        "Liang et al., CVPR 2018, arXiv 1803.06067",
        "77.8 test (the paper)",
        Sizes(8),
        note=NOTE,
    ),
}
