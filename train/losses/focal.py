"""The border loss of DFN (Yu et al., CVPR 2018, arXiv 1804.09337)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parallel import pooled_mean
from .edges import edge_targets, labelled_mask

GAMMA = 2.0
"""Exponent of the focal factor (TorchSeg, model/dfn; the paper leaves it open)."""
RADIUS = 3
"""Of the boundary, in pixels. TorchSeg dilates Canny's line of one pixel to seven; bands here are even."""


def border_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss -(1 - p)^gamma ln(p) of "a boundary runs here", mean over the labelled pixels.

    TorchSeg's SigmoidFocalLoss takes a probability where the logarithm's argument belongs; this is the paper's
    formula (2).

    Args:
        logits: `(N, 1, H, W)`.
        labels: `(N, H, W)` int64.
    """
    surprise = F.binary_cross_entropy_with_logits(logits, edge_targets(labels, RADIUS), reduction="none")  # -ln(p)
    focal = (1 - torch.exp(-surprise)) ** GAMMA * surprise
    mask = labelled_mask(labels)
    return pooled_mean((focal * mask).sum(), mask.sum())
