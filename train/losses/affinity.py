"""Adaptive affinity fields (Ke et al., ECCV 2018, arXiv 1803.10335).

After network/aaf of twke18/Adaptive_Affinity_Fields. Beside the class of every pixel, a network learns which
neighbours are alike: the class probabilities of two with the same label should agree, those of two with different
labels should not.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.runtime import IGNORE

from ..parallel import pooled_mean

REACHES = (1, 2, 3)
"""Distances of the neighbours, in pixels of the logits: the corners and sides of 3x3, 5x5 and 7x7 patches."""
MARGIN = 3.0
"""KL divergence beyond which two neighbours of different classes differ enough (the train scripts' kld_margin)."""
FLOOR = 1e-4
"""Of a probability, against infinite logarithms."""
COMPASS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
"""Directions of the eight neighbours: rows, columns."""


class KernelWeights(nn.Module):
    """How much each reach counts for each class: the adversary that the network learns against.

    The loss is minimised over the network and maximised over these, so their gradient is turned round.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.edge = nn.Parameter(torch.zeros(classes, len(REACHES)))
        self.inner = nn.Parameter(torch.zeros(classes, len(REACHES)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Weights of pairs across and within classes, `(C, reaches)` each; a class's add up to 1."""
        return _turned(self.edge).softmax(dim=1), _turned(self.inner).softmax(dim=1)


def _turned(x: Tensor) -> Tensor:
    """The same values; their gradient is turned round."""
    y: Tensor = _Reversed.apply(x)  # type: ignore[no-untyped-call]
    return y


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return -gradient


def affinity_loss(logits: Tensor, labels: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """What neighbours' probabilities differ within classes, and lack to `MARGIN` across them, over all reaches.

    Args:
        logits: `(N, C, h, w)`, at the resolution at which neighbours are compared.
        labels: `(N, H, W)` int64, of any size; brought to that of the logits by taking the nearest.
        weights: what `KernelWeights` gives; None weighs all reaches alike.
    """
    probabilities = logits.softmax(dim=1)
    labels = F.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest")[:, 0].long()
    alike = logits.new_full((logits.shape[1], len(REACHES)), 1 / len(REACHES))
    edge, inner = weights or (alike, alike)
    terms = (reach_loss(probabilities, labels, r, edge[:, i], inner[:, i]) for i, r in enumerate(REACHES))
    return torch.stack(list(terms)).sum()


def reach_loss(probabilities: Tensor, labels: Tensor, reach: int, edge: Tensor, inner: Tensor) -> Tensor:
    """Mean over pairs and classes across boundaries, plus the mean within; `edge` and `inner` are `(C,)` weights.

    Probabilities `(N, C, h, w)`, labels `(N, h, w)`. Of a pair, the class that the first pixel has decides the
    weight. A pair with an unlabelled pixel does not count.
    """
    sums = torch.zeros(4, device=labels.device)
    for dy, dx in COMPASS:
        (rows, columns), (other_rows, other_columns) = overlap(labels.shape[1:], dy * reach, dx * reach)
        p, q = probabilities[..., rows, columns], probabilities[..., other_rows, other_columns]
        label, other = labels[:, rows, columns], labels[:, other_rows, other_columns]
        sums = sums + pair_sums(p, q, label, other, edge, inner)
    edge_sum, edge_count, inner_sum, inner_count = sums
    return pooled_mean(edge_sum, edge_count) + pooled_mean(inner_sum, inner_count)


def pair_sums(p: Tensor, q: Tensor, label: Tensor, other: Tensor, edge: Tensor, inner: Tensor) -> Tensor:
    """Weighted losses and counts of pairs across classes and within, `(4,)`.

    Args:
        p: `(N, C, h, w)` probabilities of the first pixels.
        q: likewise, of their neighbours.
        label: `(N, h, w)` int64 of the first pixels.
        other: likewise, of their neighbours.
        edge: `(C,)` weights of pairs across classes.
        inner: `(C,)` weights of pairs within.
    """
    counted = ((label != IGNORE) & (other != IGNORE))[:, None]
    label = label.where(counted[:, 0], 0)
    classes = torch.arange(p.shape[1], device=p.device).view(1, -1, 1, 1)
    # A boundary concerns the two classes that meet there; for any other class, both pixels are alike: not of it.
    crossing = ((label[:, None] == classes) != (other[:, None] == classes)) & counted
    within = counted & ~crossing
    divergence = binary_divergence(q, p)
    return torch.stack(
        [
            (edge[label][:, None] * F.relu(MARGIN - divergence) * crossing).sum(),
            crossing.sum(),
            (inner[label][:, None] * divergence * within).sum(),
            within.sum(),
        ]
    )


def binary_divergence(q: Tensor, p: Tensor) -> Tensor:
    """KL divergence of "is of this class" with probability q from that with probability p, element by element."""
    p, not_p, q, not_q = (x.clamp(FLOOR, 1) for x in (p, 1 - p, q, 1 - q))
    return q * (q / p).log() + not_q * (not_q / not_p).log()


def overlap(size: torch.Size, dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of the pixels that have a neighbour `dy` down and `dx` right of them, and of those."""
    height, width = size
    here = (slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0)))
    there = (slice(max(dy, 0), height - max(-dy, 0)), slice(max(dx, 0), width - max(-dx, 0)))
    return here, there
