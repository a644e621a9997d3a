"""SwiftNet (Orsic et al., CVPR 2019, arXiv 1903.08469), single scale, after the authors' orsic/swiftnet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import pre_activated, spatial_size, upsample
from .resnet import ResNet


class SwiftNet(nn.Module):
    """A ResNet-18 pretrained for classification, spatial pyramid pooling, and a slim decoder with skips.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/4, W/4)`; it has no auxiliary heads. The
    authors' network normalises the image itself; here the ModelSpec does, as for every network.
    """

    align_corners = False
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        width = 128
        self.backbone = ResNet(18)
        self.context = SpatialPyramid(self.backbone.channels[-1], width)
        self.blends = nn.ModuleList(Blend(channels, width) for channels in self.backbone.channels[-2::-1])
        self.head = nn.Sequential(*pre_activated(width, classes, 1, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        *skips, deep = self.backbone(x)
        x = self.context(deep)  # (N, 128, H/32, W/32)
        for blend, skip in zip(self.blends, reversed(skips), strict=True):
            x = blend(x, skip)
        logits: Tensor = self.head(x)  # (N, classes, H/4, W/4)
        return logits


class SpatialPyramid(nn.Module):
    """Averages over grids of 8, 4 and 2 rows whose cells are nearly square, beside the map itself."""

    grids = (8, 4, 2)
    """Rows; the columns follow the shape of the map."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        level = width // len(self.grids)
        self.reduce = nn.Sequential(*pre_activated(in_channels, width, 1))
        self.levels = nn.ModuleList(nn.Sequential(*pre_activated(width, level, 1)) for _ in self.grids)
        self.fuse = nn.Sequential(*pre_activated(width + level * len(self.grids), width, 1))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = spatial_size(x)
        x = self.reduce(x)
        gathered = [x]
        for level, grid in zip(self.levels, self.grids, strict=True):
            cells = F.adaptive_avg_pool2d(x, (grid, max(1, round(columns / rows * grid))))
            gathered.append(upsample(level(cells), (rows, columns), align_corners=False))
        y: Tensor = self.fuse(torch.cat(gathered, dim=1))
        return y


class Blend(nn.Module):
    """Brings a map to the size of a skip, adds the skip's projection, and mixes both."""

    def __init__(self, skip_channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(*pre_activated(skip_channels, width, 1))
        self.mix = nn.Sequential(*pre_activated(width, width, 3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        projected = self.project(skip)
        y: Tensor = self.mix(upsample(x, spatial_size(projected), align_corners=False) + projected)
        return y


NETWORKS = {
    "swiftnet_r18": Architecture(
        SwiftNet,
        "Orsic et al., CVPR 2019, arXiv 1903.08469",
        "75.4 val, 1024x2048, single scale; 75.5 test (the paper)",
        Sizes(256),
    ),
}
