"""What a recipe says of its loss, and the loss that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import UsageError

from ..models.outputs import Outputs
from .affinity import KernelWeights, affinity_loss
from .boundary import boundary_loss, labels_on_boundaries
from .cross_entropy import cross_entropy, label_mass
from .detail import detail_loss
from .focal import border_loss
from .ohem import ohem

EDGE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "border": border_loss,
    "boundary": boundary_loss,
    "detail": detail_loss,
}
"""Of boundary logits `(N, 1, H, W)` against labels `(N, H, W)`, by the name that a recipe gives."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """Cross-entropy over all pixels or the hardest ones, with auxiliary heads and boundary branches."""

    kind: Literal["ce", "ohem"] = "ce"
    """"ohem": online hard example mining (Shrivastava et al., 2016) as segmentation networks use it."""
    aux_weight: float | tuple[float, ...] = 0.4
    """Of every logits after the first, or of each."""
    aux_kind: Literal["same", "ce"] = "same"
    """Of the logits after the first."""
    ohem_threshold: float = 0.7
    """Pixels whose true class gets less probability than this are hard."""
    ohem_share: float = 1 / 16
    """At least this share of the labelled pixels counts, hard or not."""
    ohem_min_kept: int = 0
    """At least this many pixels per frame count, hard or not."""
    stride: int = 1
    """Every stride-th row and column of the labels counts; 2 costs a quarter at nearly the same gradient."""
    edges: Literal["none", "border", "boundary", "detail"] = "none"
    """Of boundary branches: "border" is DFN's, "boundary" PIDNet's with its second look at the class logits,
    "detail" STDC's."""
    edge_weight: float = 1.0
    """Of each boundary branch."""
    affinity: float = 0.0
    """Weight of adaptive affinity fields on the main logits; see losses/affinity.py."""

    def __call__(
        self,
        outputs: Sequence[Tensor] | Outputs,
        labels: Tensor,
        weights: Tensor | None,
        align_corners: bool,
        kernels: KernelWeights | None = None,
        progress: float = 0.0,
    ) -> Tensor:
        """Scalar loss of what a network returned in training.

        Args:
            outputs: class logits `(N, C, h, w)`, the main ones first; in Outputs with those of boundary branches.
            labels: `(N, H, W)` int64.
            weights: of the classes, `(C,)`; None weighs all alike.
            align_corners: how logits are upsampled to the labels.
            kernels: learned weights of the affinity fields; None weighs their reaches alike.
            progress: share of the run that is over; affinity fields fade to a tenth in its course.

        Raises:
            UsageError: if the network has other branches than this loss speaks of.
        """
        logits, edges = outputs if isinstance(outputs, Outputs) else (outputs, [])
        self._check(len(logits) - 1, len(edges))
        labels = labels[:, :: self.stride, :: self.stride]
        resized, resized_edges = (
            [F.interpolate(x, labels.shape[1:], mode="bilinear", align_corners=align_corners) for x in maps]
            for maps in (logits, edges)
        )
        loss = self._of_classes(resized, labels, weights)
        if self.edges != "none":
            loss = loss + self._of_edges(resized[0], resized_edges, labels, weights)
        if self.affinity:
            fields = affinity_loss(logits[0], labels, kernels() if kernels else None)
            loss = loss + self.affinity * 0.1**progress * fields
        return loss

    def mass(self, labels: Tensor, weights: Tensor | None) -> Tensor:
        """What the labelled pixels that count weigh together; shapes as in a call."""
        return label_mass(labels[:, :: self.stride, :: self.stride], weights)

    def _of_classes(self, logits: list[Tensor], labels: Tensor, weights: Tensor | None) -> Tensor:
        main, *aux = logits
        loss = self._one(main, labels, weights, self.kind)
        kind = self.kind if self.aux_kind == "same" else self.aux_kind
        for weight, head in zip(self._aux_weights(len(aux)), aux, strict=True):
            loss = loss + weight * self._one(head, labels, weights, kind)
        return loss

    def _of_edges(self, main: Tensor, edges: list[Tensor], labels: Tensor, weights: Tensor | None) -> Tensor:
        measure = EDGE_LOSSES[self.edges]
        loss = self.edge_weight * torch.stack([measure(logits, labels) for logits in edges]).sum()
        if self.edges == "boundary":
            loss = loss + self._one(main, labels_on_boundaries(edges[0], labels), weights, self.kind)
        return loss

    def _one(self, logits: Tensor, labels: Tensor, weights: Tensor | None, kind: str) -> Tensor:
        if kind == "ce":
            return cross_entropy(logits, labels, weights)
        return ohem(logits, labels, weights, self.ohem_threshold, self.ohem_share, self.ohem_min_kept)

    def _aux_weights(self, heads: int) -> tuple[float, ...]:
        return self.aux_weight if isinstance(self.aux_weight, tuple) else (self.aux_weight,) * heads

    def _check(self, heads: int, branches: int) -> None:
        if len(self._aux_weights(heads)) != heads:
            raise UsageError(f"the loss weighs {self.aux_weight} auxiliary heads, but the network has {heads}.")
        if self.edges != "none" and not branches:
            raise UsageError(f'the loss is for a boundary branch (edges = "{self.edges}"); the network has none.')
        if self.edges == "none" and branches:
            raise UsageError(
                f"the network has boundary branches; say in the recipe's loss which edges they learn: "
                f"{', '.join(EDGE_LOSSES)}."
            )
