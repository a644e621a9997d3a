"""The boundary losses of PIDNet (Xu et al., CVPR 2023, arXiv 2206.02066).

After utils/criterion.py of XuJiacong/PIDNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import IGNORE

from ..parallel import pooled_mean, total
from .edges import edge_targets, labelled_mask

RADIUS = 2
"""Of the boundary, in pixels: the authors dilate Canny's line to 4 pixels (datasets/base_dataset.py)."""
SURE = 0.8
"""Probability of a boundary above which the class logits are trained once more (utils/utils.py)."""


def boundary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of "a boundary runs here" in which the pixels on and off boundaries weigh the same together.

    Each pixel has the share of the other kind for its weight.

    Args:
        logits: `(N, 1, H, W)`.
        labels: `(N, H, W)` int64.
    """
    targets, mask = edge_targets(labels, RADIUS), labelled_mask(labels)
    share = total((targets * mask).sum()) / total(mask.sum()).clamp(min=1)
    weights = mask * torch.where(targets > 0, 1 - share, share)
    return pooled_mean(F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum"), mask.sum())


def labels_on_boundaries(logits: Tensor, labels: Tensor) -> Tensor:
    """The labels where the network is sure of a boundary, IGNORE elsewhere; shapes as in `boundary_loss`."""
    return labels.where(torch.sigmoid(logits[:, 0].detach()) > SURE, IGNORE)
