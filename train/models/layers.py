"""Blocks that several networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded to keep the size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                stride,
                kernel // 2 if padding is None else padding,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def upsample(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to `size` (rows, columns)."""
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def init_weights(net: nn.Module) -> None:
    """He initialisation for every convolution; batch norms start as the identity."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def spatial_size(x: Tensor) -> tuple[int, int]:
    """Rows and columns of `(N, C, H, W)`."""
    return x.shape[-2], x.shape[-1]


def global_average(x: Tensor) -> Tensor:
    """Mean over all positions, `(N, C, H, W)` to `(N, C, 1, 1)`."""
    return torch.mean(x, dim=(2, 3), keepdim=True)
