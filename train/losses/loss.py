"""Losses of logits against label maps."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import IGNORE


@dataclasses.dataclass(frozen=True)
class Loss:
    """Pixel-wise cross-entropy, over all pixels or the hardest ones, with auxiliary heads."""

    kind: Literal["ce", "ohem"] = "ce"
    """"ohem": online hard example mining (Shrivastava et al., 2016) as segmentation networks use it."""
    aux_weight: float = 0.4
    """Of every logits after the first."""
    ohem_threshold: float = 0.7
    """Pixels whose true class gets less probability than this are hard."""
    ohem_share: float = 1 / 16
    """At least this share of the labelled pixels counts, hard or not."""
    stride: int = 1
    """Every stride-th row and column of the labels counts; 2 costs a quarter at nearly the same gradient."""

    def __call__(
        self, outputs: list[Tensor], labels: Tensor, weights: Tensor | None, align_corners: bool
    ) -> Tensor:
        """Scalar loss of `outputs`, logits `(N, C, h, w)` each, for `labels` `(N, H, W)` int64.

        `weights` is `(C,)` or None.
        """
        labels = labels[:, :: self.stride, :: self.stride]
        main, *aux = (self._one(logits, labels, weights, align_corners) for logits in outputs)
        return main + self.aux_weight * sum(aux, torch.zeros_like(main))

    def _one(self, logits: Tensor, labels: Tensor, weights: Tensor | None, align_corners: bool) -> Tensor:
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
        if self.kind == "ce":
            return F.cross_entropy(logits, labels, weights, ignore_index=IGNORE)
        return ohem(logits, labels, weights, self.ohem_threshold, self.ohem_share)


def ohem(logits: Tensor, labels: Tensor, weights: Tensor | None, threshold: float, share: float) -> Tensor:
    """Mean cross-entropy of the pixels with loss above -log(threshold), and at least `share` of all labelled."""
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten()
    labelled = labels.flatten() != IGNORE
    keep = max(1, int(share * int(labelled.sum())))
    hardness = losses.detach()[labelled]
    if not hardness.numel():
        return losses.sum() * 0
    limit = torch.topk(hardness, keep).values[-1].clamp(max=-torch.log(torch.tensor(threshold)))
    chosen = labelled & (losses.detach() >= limit)
    if weights is None:
        return losses[chosen].mean()
    pixel_weights = weights[labels.flatten()[chosen]]
    return (losses[chosen] * pixel_weights).sum() / pixel_weights.sum()


def log_class_weights(counts: Tensor) -> Tensor:
    """Weights `(C,)` from pixel counts `(C,)`: 1 / ln(1.02 + share), as in ENet (arXiv 1606.02147), mean 1."""
    weights = 1 / torch.log(1.02 + counts / counts.sum())
    return weights / weights.mean()
