"""Cross-entropy over all labelled pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import IGNORE

from ..parallel import pooled_mean


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the labelled pixels, in which each weighs what its class does.

    Args:
        logits: `(N, C, H, W)`.
        labels: `(N, H, W)` int64.
        weights: `(C,)`; None weighs all alike.
    """
    mass = label_mass(labels, weights)
    if not mass:
        return logits.sum() * 0
    return F.cross_entropy(logits, labels, weights, ignore_index=IGNORE) * pooled_mean(mass, mass)


def label_mass(labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """What the labelled pixels of this process weigh together: their number where `weights` is None."""
    labelled = labels[labels != IGNORE]
    return weights[labelled].sum() if weights is not None else labelled.new_tensor(labelled.numel()).float()
