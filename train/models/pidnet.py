"""PIDNet-S (Xu et al., CVPR 2023, arXiv 2206.02066): branches for detail, context and boundaries.

After models/pidnet.py and models/model_utils.py of XuJiacong/PIDNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .ddrnet import Head, PooledScales, basic_blocks, quarter_stem, widening_block
from .layers import conv_bn, pre_activated, spatial_size, upsample
from .outputs import Outputs
from .resnet import BasicBlock


class PIDNet(nn.Module):
    """A detail and a boundary branch at 1/8 that listen to a context branch down to 1/64.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training Outputs with auxiliary
    logits of the detail branch, and logits of the boundaries, at the same size.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame; within the network it is done without."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        width = 32
        self.stem = quarter_stem(width)
        self.layer1 = basic_blocks(width, width, 2)
        self.layer2 = basic_blocks(width, 2 * width, 2, stride=2)
        self.layer3 = basic_blocks(2 * width, 4 * width, 3, stride=2)
        self.layer4 = basic_blocks(4 * width, 8 * width, 3, stride=2)
        self.layer5 = nn.Sequential(
            widening_block(8 * width, 8 * width, stride=2), widening_block(16 * width, 8 * width)
        )
        self.context = PAPPM(16 * width, 96, 4 * width)
        self.detail3 = basic_blocks(2 * width, 2 * width, 2)
        self.detail4 = basic_blocks(2 * width, 2 * width, 2)
        self.detail5 = widening_block(2 * width, 2 * width)
        self.guide3 = PixelGuide(2 * width, 4 * width, width)
        self.guide4 = PixelGuide(2 * width, 8 * width, width)
        self.boundary3 = BasicBlock(2 * width, width, 1, relu=False)
        self.boundary4 = widening_block(width, width)
        self.boundary5 = widening_block(2 * width, 2 * width)
        self.difference3 = conv_bn(4 * width, width)
        self.difference4 = conv_bn(8 * width, 2 * width)
        self.fusion = BoundaryFusion(4 * width)
        self.head = Head(4 * width, 128, classes)
        if aux:
            self.aux_head = Head(2 * width, 128, classes)
            self.boundary_head = Head(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor | Outputs:
        x = F.relu(self.layer1(self.stem(x)))  # (N, width, H/4, W/4)
        x = F.relu(self.layer2(x))  # (N, 2 width, H/8, W/8)
        size = spatial_size(x)
        detail, boundary = self.detail3(x), self.boundary3(x)

        x = F.relu(self.layer3(x))  # (N, 4 width, H/16, W/16)
        first_detail = F.relu(self.guide3(detail, x))
        boundary = F.relu(boundary + upsample(self.difference3(x), size, align_corners=False))

        x = F.relu(self.layer4(x))  # (N, 8 width, H/32, W/32)
        detail = F.relu(self.guide4(self.detail4(first_detail), x))
        second_boundary = F.relu(
            self.boundary4(boundary) + upsample(self.difference4(x), size, align_corners=False)
        )

        context = upsample(self.context(self.layer5(x)), size, align_corners=False)  # (N, 4 width, H/8, W/8)
        logits: Tensor = self.head(self.fusion(self.detail5(detail), context, self.boundary5(second_boundary)))
        if self.training and hasattr(self, "aux_head"):
            # The authors' heads see these maps behind the ReLU, which their code applies in place.
            return Outputs([logits, self.aux_head(first_detail)], [self.boundary_head(second_boundary)])
        return logits


class PAPPM(nn.Module):
    """Parallel aggregation pyramid pooling: DAPPM whose scales are convolved at once, in groups."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.scales = PooledScales(in_channels, width)
        self.process = nn.Sequential(*pre_activated(4 * width, 4 * width, 3, groups=4))
        self.compression = nn.Sequential(*pre_activated(5 * width, out_channels, 1))
        self.shortcut = nn.Sequential(*pre_activated(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        own, *pooled = self.scales(x)
        processed = self.process(torch.cat([scale + own for scale in pooled], dim=1))
        y: Tensor = self.compression(torch.cat([own, processed], dim=1)) + self.shortcut(x)
        return y


class PixelGuide(nn.Module):
    """Pag, pixel attention guidance: mixes context into detail where their embeddings agree."""

    def __init__(self, detail_channels: int, context_channels: int, hidden: int) -> None:
        super().__init__()
        self.compression = conv_bn(context_channels, detail_channels, 1)
        self.embed_detail = conv_bn(detail_channels, hidden, 1)
        self.embed_context = conv_bn(detail_channels, hidden, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        size = spatial_size(detail)
        context = self.compression(context)
        embedded = upsample(self.embed_context(context), size, align_corners=False)
        agreement = torch.sigmoid((self.embed_detail(detail) * embedded).sum(dim=1, keepdim=True))
        return (1 - agreement) * detail + agreement * upsample(context, size, align_corners=False)


class BoundaryFusion(nn.Module):
    """Light-Bag, boundary attention guided fusion: detail counts where a boundary runs, context elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_detail = conv_bn(channels, channels, 1)
        self.of_context = conv_bn(channels, channels, 1)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        here = torch.sigmoid(boundary)
        y: Tensor = self.of_detail((1 - here) * context + detail) + self.of_context(context + here * detail)
        return y


NETWORKS = {
    "pidnet_s": Architecture(
        PIDNet,
        "Xu et al., CVPR 2023, arXiv 2206.02066",
        "78.8 val, 1024x2048, single scale (XuJiacong/PIDNet); 78.6 test",
        Sizes(8),
    ),
}
