"""Blocks that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """Convolution that starts with He's weights (arXiv 1502.01852), scaled by its outputs, and a bias of 0."""

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


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
            Conv2d(
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


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution, batch norm and `activation` under the keys 0, 1, 2; padded to keep the size at stride 1."""
    padding = (kernel // 2) * dilation
    layers: list[nn.Module] = [
        Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([activation] if activation else []))


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, dilation: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Convolution, batch norm and ReLU under the keys 0, 1, 2."""
    relu = nn.ReLU(inplace=True)
    return conv_bn(in_channels, out_channels, kernel, stride, dilation, bias=bias, activation=relu)


def conv_abn(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, dilation: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Convolution, batch norm and leaky ReLU: what InPlace-ABN computes once its |gamma| is in the weights."""
    leaky = nn.LeakyReLU(0.01, inplace=True)
    return conv_bn(in_channels, out_channels, kernel, stride, dilation, bias=bias, activation=leaky)


def fcn_head(
    in_channels: int,
    hidden: int,
    classes: int,
    dropout: float = 0.1,
    *,
    conv: Callable[..., nn.Sequential] = conv_bn_relu,
    bias: bool = False,
) -> nn.Sequential:
    """3x3 convolution as `conv` makes it, dropout of channels, and a 1x1 convolution to the classes."""
    return nn.Sequential(*conv(in_channels, hidden, bias=bias), nn.Dropout2d(dropout), Conv2d(hidden, classes, 1))


def pre_activated(
    in_channels: int, out_channels: int, kernel: int, *, dilation: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """Batch norm, ReLU, and a convolution that keeps the size."""
    padding = (kernel // 2) * dilation
    return [
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        Conv2d(in_channels, out_channels, kernel, 1, padding, dilation, groups, bias),
    ]


def upsample(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to `size` (rows, columns)."""
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def spatial_size(x: Tensor) -> tuple[int, int]:
    """Rows and columns of `(N, C, H, W)`."""
    return x.shape[-2], x.shape[-1]


def global_average(x: Tensor) -> Tensor:
    """Mean over all positions, `(N, C, H, W)` to `(N, C, 1, 1)`."""
    return torch.mean(x, dim=(2, 3), keepdim=True)
