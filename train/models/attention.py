"""What a position of a map gathers from other positions, or a channel from other channels.

Each kind is one function of maps in standard operators, so that a custom operator can take its place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .layers import Conv2d

TILE = 4096
"""Queries that are answered at once: at 1/8 of 1024x2048 their weights take 268 MB in FP16, all of them 2.1 GB."""

REPEATED = -1e4
"""Added to an energy that stands in the same softmax once more: its weight becomes 0, as with -inf, which would
spoil the ranges that INT8 calibration finds."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From query and key `(N, D, H, W)` and value `(N, C, H, W)` to what is gathered, `(N, C, H, W)`."""


def position_attention(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """Every position gathers from all, weighted by the softmax of the products of query and key, times `scale`.

    Tiles of queries are answered one after the other, which changes no number.
    """
    queries = query.flatten(2).transpose(1, 2)  # (N, H*W, D)
    keys = key.flatten(2)
    values = value.flatten(2).transpose(1, 2)  # (N, H*W, C)
    energies = (tile @ keys for tile in torch.split(queries, TILE, dim=1))  # (N, TILE, H*W) each
    if scale != 1:
        energies = (scale * energy for energy in energies)
    gathered = [torch.softmax(energy, dim=-1) @ values for energy in energies]
    return torch.cat(gathered, dim=1).transpose(1, 2).reshape(value.shape)


def attention_in_cells(query: Tensor, key: Tensor, value: Tensor, grid: int, scale: float = 1.0) -> Tensor:
    """`position_attention` within each cell of a map that is cut into `grid` rows and columns."""
    bands = []
    for band in zip(*(cut(x, grid, dim=2) for x in (query, key, value)), strict=True):
        cells = zip(*(cut(x, grid, dim=3) for x in band), strict=True)
        bands.append(torch.cat([position_attention(q, k, v, scale) for q, k, v in cells], dim=3))
    return torch.cat(bands, dim=2)


def cut(x: Tensor, parts: int, dim: int) -> tuple[Tensor, ...]:
    """Equal parts of an axis, the last of which takes what is left over."""
    length, rest = divmod(x.shape[dim], parts)
    return torch.split(x, [*[length] * (parts - 1), length + rest], dim)


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every position gathers from its column and its row, itself once (CCNet, arXiv 1811.11721)."""
    height = query.shape[2]
    own = REPEATED * torch.eye(height, dtype=query.dtype, device=query.device)
    column = query.permute(0, 3, 2, 1) @ key.permute(0, 3, 1, 2) + own  # (N, W, H, H)
    row = query.permute(0, 2, 3, 1) @ key.permute(0, 2, 1, 3)  # (N, H, W, W)
    weights = torch.softmax(torch.cat([column.transpose(1, 2), row], dim=-1), dim=-1)  # (N, H, W, H + W)
    from_column = weights[..., :height].transpose(1, 2) @ value.permute(0, 3, 2, 1)  # (N, W, H, C)
    from_row = weights[..., height:] @ value.permute(0, 2, 3, 1)  # (N, H, W, C)
    return (from_column.transpose(1, 2) + from_row).permute(0, 3, 1, 2)


def channel_attention(x: Tensor) -> Tensor:
    """Every channel gathers from all, most from those it resembles least (DANet, arXiv 1809.02983).

    The energies are sums over all positions and leave FP16's range: they need FP32.
    """
    channels = x.flatten(2)  # (N, C, H*W)
    energy = channels @ channels.transpose(1, 2)  # (N, C, C)
    weights = torch.softmax(energy.amax(dim=-1, keepdim=True) - energy, dim=-1)
    return (weights @ channels).reshape(x.shape)


class ResidualAttention(nn.Module):
    """Adds what `attend` gathers, times a learned factor that starts at zero."""

    def __init__(self, channels: int, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.query = Conv2d(channels, channels // 8, 1)
        self.key = Conv2d(channels, channels // 8, 1)
        self.value = Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * self.attend(self.query(x), self.key(x), self.value(x)) + x
