"""Online hard example mining (Shrivastava et al., CVPR 2016, arXiv 1604.03540) as segmentation networks use it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import IGNORE

from ..parallel import kth_largest, pooled_mean, total


def ohem(
    logits: Tensor, labels: Tensor, weights: Tensor | None, threshold: float, share: float = 0.0, min_kept: int = 0
) -> Tensor:
    """Mean cross-entropy of the hard pixels of all processes.

    Args:
        logits: `(N, C, H, W)`.
        labels: `(N, H, W)` int64.
        weights: `(C,)`, of the classes in the mean, not in the choice; None weighs all alike.
        threshold: a pixel whose true class gets less probability than this is hard.
        share: at least this share of the labelled pixels counts, hard or not.
        min_kept: at least this many pixels per frame count, hard or not, as far as there are so many.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten()
    labelled = labels.flatten() != IGNORE
    hardness = losses.detach()[labelled]
    pixels, frames = (int(n) for n in total(torch.tensor([len(hardness), len(labels)], device=labels.device)))
    if not pixels:
        return losses.sum() * 0
    keep = max(1, int(share * pixels), min(min_kept * frames, pixels))
    limit = kth_largest(hardness, keep).clamp(max=-math.log(threshold))
    chosen = labelled & (losses.detach() >= limit)
    mass = torch.ones_like(losses[chosen]) if weights is None else weights[labels.flatten()[chosen]]
    return pooled_mean((losses[chosen] * mass).sum(), mass.sum())
