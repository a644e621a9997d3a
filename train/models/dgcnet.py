"""DGCNet (Zhang et al., BMVC 2019, arXiv 1909.06121), after lxtGH/GALD-DGCNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .galdnet import WIDTH, ContextNet
from .layers import Conv2d, conv_bn, fcn_head, spatial_size, upsample


class DGCNet(ContextNet):
    """Context from two graphs: one over positions, one over groups of channels."""

    def __init__(self, classes: int = 19, aux: bool = True, *, depth: int) -> None:
        head = fcn_head(1024, 512, classes, conv=conv_bn, bias=True) if aux else None
        super().__init__(classes, depth, DualGraph(WIDTH), head)


class DualGraph(nn.Module):
    """Both graphs beside each other, `(N, C, H, W)` to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        depthwise = [conv_bn(channels, channels, stride=2, groups=channels) for _ in range(3)]
        self.positions = nn.Sequential(*depthwise, PositionGraph(channels))
        self.features = FeatureGraph(channels)
        self.fuse = conv_bn(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        local = upsample(self.positions(x), spatial_size(x), align_corners=True)
        y: Tensor = self.fuse(torch.cat([x * local + x, self.features(x)], dim=1))
        return y


class PositionGraph(nn.Module):
    """Graph convolution over positions, whose edges are products of two embeddings."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.query = Conv2d(channels, half, 1)
        self.key = Conv2d(channels, half, 1)
        self.value = Conv2d(channels, half, 1)
        self.update = conv_bn(half, half, 1)
        self.out = conv_bn(half, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (embed(x).flatten(2) for embed in (self.query, self.key, self.value))
        # Products first over the positions: (N, C/2, C/2) in place of (N, H*W, H*W).
        mixture = torch.softmax(query @ value.transpose(1, 2), dim=2)
        mixed = (mixture.transpose(1, 2) @ key).unflatten(2, spatial_size(x))  # (N, C/2, H, W)
        return F.relu(self.out(self.update(mixed)) + x)


class FeatureGraph(nn.Module):
    """Graph convolution over nodes that channels are projected to (after GloRe, arXiv 1811.12814).

    The projection sums over all positions: at 1024x2048 it leaves FP16's range.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        states, nodes = channels // 2, channels // 4
        self.embed = conv_bn(channels, states, 1)
        self.project = conv_bn(channels, nodes, 1)
        self.over_nodes = nn.Sequential(nn.Conv1d(nodes, nodes, 1, bias=False), nn.BatchNorm1d(nodes))
        self.over_states = nn.Sequential(nn.Conv1d(states, states, 1, bias=False), nn.BatchNorm1d(states))
        self.out = conv_bn(states, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        projection = self.project(x).flatten(2)  # (N, nodes, H*W)
        graph = self.embed(x).flatten(2) @ projection.transpose(1, 2)  # (N, states, nodes)
        graph = self.over_nodes(graph.transpose(1, 2)).transpose(1, 2) + graph
        back = (self.over_states(graph) @ projection).unflatten(2, spatial_size(x))  # (N, states, H, W)
        return F.relu(x + self.out(back))


PAPER = "Zhang et al., BMVC 2019, arXiv 1909.06121"

NETWORKS = {
    "dgcnet_r50": Architecture(DGCNet, PAPER, "", Sizes(8), arguments={"depth": 50}),
    "dgcnet_r101": Architecture(
        DGCNet, PAPER, "82.0 test (lxtGH/GALD-DGCNet)", Sizes(8), arguments={"depth": 101}
    ),
}
