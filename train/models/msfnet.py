"""MSFNet (Si et al., BMVC 2021, arXiv 1911.07217), from the paper: no code is public.

After its abstract and readers' notes: a ResNet-18; behind each of its stages, pools of kernel 2s + 1 and stride s;
a fusion of all maps of one size, whatever stage they come from; two independent branches up to an eighth, one for
the classes and one for the boundaries between them. The rest is in `NOTE`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn, conv_bn_relu, spatial_size, upsample
from .outputs import Outputs
from .resnet import ResNet

STRIDES = (8, 16, 32, 64, 128)
"""Of the fused maps, in pixels of the image."""
STAGE_STRIDES = (4, 8, 16, 32)
"""Of what the backbone's stages give."""


class MSFNet(nn.Module):
    """A ResNet-18 whose stages are pooled to five sizes, fused per size, and brought back up to 1/8.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; in training Outputs with those of
    the boundaries at the same size.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:
        super().__init__()
        width = 128
        self.backbone = ResNet(18)
        self.fusion = MultiFeatureFusion(self.backbone.channels, width)
        self.segment = UpwardBranch(width, classes)
        self.boundary = UpwardBranch(width, 1) if aux else None

    def forward(self, x: Tensor) -> Tensor | Outputs:
        fused = self.fusion(self.backbone(x))
        logits: Tensor = self.segment(fused)  # (N, classes, H/8, W/8)
        if self.training and self.boundary is not None:
            return Outputs([logits], [self.boundary(fused)])
        return logits


class MultiFeatureFusion(nn.Module):
    """Brings every stage to all of STRIDES that are not below its own, and fuses what has the same size."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.fuse = nn.ModuleList()
        for stride in STRIDES:
            seen = sum(c for c, own in zip(channels, STAGE_STRIDES, strict=True) if own <= stride)
            self.fuse.append(nn.Sequential(conv_bn_relu(seen, width, 1), *separable(width)))

    def forward(self, stages: tuple[Tensor, ...]) -> list[Tensor]:
        """`(N, width, H/stride, W/stride)` for each of STRIDES."""
        fused = []
        for stride, fuse in zip(STRIDES, self.fuse, strict=True):
            seen = [(x, stride // own) for x, own in zip(stages, STAGE_STRIDES, strict=True) if own <= stride]
            fused.append(fuse(torch.cat([spatial_aware_pool(x, by) for x, by in seen], dim=1)))
        return fused


def spatial_aware_pool(x: Tensor, stride: int) -> Tensor:
    """`(N, C, h, w)` to `(N, C, h/stride, w/stride)` by averages whose windows overlap."""
    return x if stride == 1 else F.avg_pool2d(x, 2 * stride + 1, stride, stride)


def separable(channels: int) -> list[nn.Module]:
    """3x3 depthwise convolution and 1x1 convolution, batch norm behind each, ReLU at the end."""
    return [conv_bn(channels, channels, groups=channels), conv_bn_relu(channels, channels, 1)]


class UpwardBranch(nn.Module):
    """From the smallest map to the largest: resize, add, convolve; then logits."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(conv_bn_relu(width, width) for _ in STRIDES[1:])
        self.head = nn.Sequential(conv_bn_relu(width, width), Conv2d(width, out_channels, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        *larger, x = maps
        for step, target in zip(self.steps, reversed(larger), strict=True):
            x = step(upsample(x, spatial_size(target), align_corners=True) + target)
        y: Tensor = self.head(x)
        return y


NOTE = (
    "No code is public, and the paper was read in others' words. Ours: average pools, to five sizes from 1/8 to "
    "1/128; 128 channels; a 1x1 and a separable convolution per fused map; branches that resize, add, convolve; "
    "the boundary branch is for training alone."
)

NETWORKS = {
    "msfnet": Architecture(
        MSFNet,
        "Si et al., BMVC 2021, arXiv 1911.07217",
        "77.1 test, 1024x2048 (the paper)",
        Sizes(128),
        note=NOTE,
    ),
}
