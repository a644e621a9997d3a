"""What a position of a map gathers from other positions, or a channel from other channels.

What takes gigabytes or dozens of nodes in standard operators is in `roadseg.export.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .layers import Conv2d

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From query and key `(N, D, H, W)` and value `(N, C, H, W)` to what is gathered, `(N, C, H, W)`: an operator, for
one."""


def in_cells(attend: Attend, grid: int) -> Attend:
    """`attend` within each cell of a map that is cut into `grid` rows and columns.

    Cells of one size answer together, as frames of a batch. The last row and the last column take what is left
    over.
    """
    return in_parts(in_parts(attend, grid, dim=3), grid, dim=2)


def in_parts(attend: Attend, parts: int, dim: int) -> Attend:
    """`attend` within each part of an axis, the last of which takes what is left over."""

    def gather(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        length, rest = divmod(value.shape[dim], parts)
        if rest == 0:
            return in_equal_parts(attend, (query, key, value), parts, dim)
        sizes = [(parts - 1) * length, length + rest]
        equal, last = zip(*(torch.split(x, sizes, dim) for x in (query, key, value)), strict=True)
        return torch.cat([in_equal_parts(attend, equal, parts - 1, dim), attend(*last)], dim)

    return gather


def in_equal_parts(attend: Attend, maps: Sequence[Tensor], parts: int, dim: int) -> Tensor:
    """`attend` within each of several equal parts of an axis, made frames of a batch for it."""
    frames = [torch.unflatten(x, dim, (parts, -1)).movedim(dim, 1).flatten(0, 1) for x in maps]
    gathered = attend(*frames)  # (N * parts, C, ...)
    return torch.unflatten(gathered, 0, (-1, parts)).movedim(1, dim).flatten(dim, dim + 1)


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
