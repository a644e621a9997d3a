"""GloRe (Chen et al., CVPR 2019, arXiv 1811.12814): the unit after facebookresearch/GloRe, in an FCN of ours."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn_relu, fcn_head, spatial_size
from .resnet import DILATED, ResNet


class GloRe(nn.Module):
    """Features at 1/8 that learn of each other through a small graph.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`; in training a list with the auxiliary
    logits behind them. The stem's pool rounds up: h is H/8 + 1 where H is a multiple of 8.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True, *, depth: int) -> None:
        super().__init__()
        self.backbone = ResNet(depth, stem="deep", strides=(1, 2, 1, 1), dilations=DILATED, ceil_pool=True)
        self.head = nn.Sequential(
            conv_bn_relu(2048, 512), GlobalReasoning(512, 128), nn.Dropout2d(0.1), Conv2d(512, classes, 1)
        )
        if aux:
            self.aux = fcn_head(1024, 512, classes, bias=True)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        *_, third, deep = self.backbone(x)  # (N, 1024, h, w), (N, 2048, h, w)
        logits: Tensor = self.head(deep)
        return [logits, self.aux(third)] if self.training and hasattr(self, "aux") else logits


class GlobalReasoning(nn.Module):
    """Projects positions to the nodes of a graph, convolves that, and adds what comes back; at first nothing.

    What arrives at a node is the mean over all positions, as the authors advise where the size may vary.
    """

    def __init__(self, channels: int, nodes: int) -> None:
        super().__init__()
        states = 2 * nodes
        self.embed = Conv2d(channels, states, 1)
        self.project = Conv2d(channels, nodes, 1)
        self.over_nodes = nn.Conv1d(nodes, nodes, 1)
        self.over_states = nn.Conv1d(states, states, 1, bias=False)
        self.extend = Conv2d(states, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=1e-4)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        projection = self.project(x).flatten(2)  # (N, nodes, H*W)
        # Divided behind the product, as the authors do: a small graph in place of a map.
        graph = self.embed(x).flatten(2) @ projection.transpose(1, 2) / projection.shape[2]  # (N, states, nodes)
        graph = self.over_nodes(graph.transpose(1, 2)).transpose(1, 2) + graph
        back = self.over_states(F.relu(graph)) @ projection  # (N, states, H*W)
        y: Tensor = self.norm(self.extend(back.unflatten(2, spatial_size(x))))
        return x + y


PAPER = "Chen et al., CVPR 2019, arXiv 1811.12814"
NOTE = (
    "Only the unit is public: its 512 channels and 128 nodes, the mean over positions, and the FCN around it with "
    "its auxiliary head are our reading of the paper."
)

NETWORKS = {
    "glore_r50": Architecture(
        GloRe, PAPER, "79.5 test in the paper", Sizes(8), arguments={"depth": 50}, note=NOTE
    ),
    "glore_r101": Architecture(
        GloRe, PAPER, "80.9 test in the paper", Sizes(8), arguments={"depth": 101}, note=NOTE
    ),
}
