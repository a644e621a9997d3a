"""Where classes meet: targets of boundary branches, made from the labels on their device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import IGNORE


def edge_targets(labels: Tensor, radius: int) -> Tensor:
    """1 on bands along the boundaries between classes, 0 elsewhere.

    Two labelled pixels of different classes, one beside or below the other, are a boundary; it grows by
    `radius` - 1 pixels in every direction, so that a straight band is 2 * `radius` wide, half on either side. What
    meets an unlabelled pixel is no boundary: nobody knows what is there.

    Args:
        labels: `(N, H, W)` int64.
        radius: in pixels, at least 1.

    Returns:
        `(N, 1, H, W)` float32.
    """
    edges = torch.zeros_like(labels, dtype=torch.bool)
    across = _differ(labels[:, :, 1:], labels[:, :, :-1])
    down = _differ(labels[:, 1:], labels[:, :-1])
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:] |= down
    edges[:, :-1] |= down
    return F.max_pool2d(edges[:, None].float(), 2 * radius - 1, stride=1, padding=radius - 1)


def labelled_mask(labels: Tensor) -> Tensor:
    """1 where there is a label: `(N, H, W)` int64 to `(N, 1, H, W)` float32."""
    return (labels != IGNORE)[:, None].float()


def _differ(one: Tensor, other: Tensor) -> Tensor:
    return (one != other) & (one != IGNORE) & (other != IGNORE)
