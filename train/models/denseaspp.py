"""DenseASPP (Yang et al., CVPR 2018), after models/DenseASPP.py of DeepMotionAIResearch/DenseASPP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .densenet import DenseNet
from .layers import Conv2d, pre_activated

RATES = (3, 6, 12, 18, 24)
"""Dilations of the head's branches, in the order in which each sees what the earlier ones gave."""


class DenseASPP(nn.Module):
    """A DenseNet at 1/8, and dilated branches that are densely connected in turn.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame: as PyTorch 0.3 did, which the authors trained with."""

    def __init__(
        self,
        classes: int = 19,
        aux: bool = True,  # noqa: ARG002 (as every network is made)
        *,
        depth: int,
        reduced: int,
        growth: int,
    ) -> None:
        """A network on the DenseNet of `depth`, whose branches reduce to `reduced` and give `growth` channels."""
        super().__init__()
        self.features = DenseNet(depth, pools=(True, False, False, False), dilations=(1, 1, 2, 4))
        width = self.features.channels
        self.branches = nn.ModuleList()
        for i, rate in enumerate(RATES):
            # What the first branch sees comes normalised and rectified.
            reduce = pre_activated(width, reduced, 1, bias=True) if i else [Conv2d(width, reduced, 1)]
            look = pre_activated(reduced, growth, 3, dilation=rate, bias=True)
            self.branches.append(nn.Sequential(nn.Sequential(*reduce), nn.Sequential(*look), nn.Dropout2d(0.1)))
            width += growth
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        # The authors' first branch rectifies its input in place, so that every later one sees it rectified too.
        x = F.relu(self.features(x), inplace=True)  # (N, features, H/8, W/8)
        for branch in self.branches:
            x = torch.cat([branch(x), x], dim=1)
        logits: Tensor = self.classifier(x)
        return logits


PAPER = "Yang et al., CVPR 2018"

NETWORKS = {
    "denseaspp121": Architecture(
        DenseASPP,
        PAPER,
        "",
        Sizes(8),
        arguments={"depth": 121, "reduced": 128, "growth": 64},
    ),
    "denseaspp161": Architecture(
        DenseASPP,
        PAPER,
        "79.9 val, 1024x2048, single scale; 80.6 val at several scales (DeepMotionAIResearch/DenseASPP)",
        Sizes(8),
        arguments={"depth": 161, "reduced": 512, "growth": 128},
    ),
}
