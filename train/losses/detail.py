"""The detail loss of STDC (Fan et al., CVPR 2021, arXiv 2104.13188).

After loss/detail_loss.py of MichaelFan01/STDC-Seg.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parallel import pooled_mean
from .edges import labelled_mask

STRIDES = (1, 2, 4)
"""Of the Laplacian pyramid; the authors' code computes 8 too, and drops it."""
FUSION = (0.6, 0.3, 0.1)
"""Weight of each stride in the fused map (the authors' fuse_kernel, which no gradient reaches)."""
THRESHOLD = 0.1
"""What a response must exceed, before and after fusing."""


def detail_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus Dice loss of "there is detail here", over the labelled pixels.

    Args:
        logits: `(N, 1, H, W)`.
        labels: `(N, H, W)` int64.
    """
    targets, mask = detail_targets(labels), labelled_mask(labels)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, mask, reduction="sum")
    dice = dice_loss(torch.sigmoid(logits) * mask, targets * mask)
    return pooled_mean(entropy, mask.sum()) + pooled_mean(dice.sum(), mask.new_tensor(len(dice)))


def detail_targets(labels: Tensor) -> Tensor:
    """1 where the Laplacian of the train ids, at several strides, is positive: `(N, H, W)` to `(N, 1, H, W)`.

    As the authors do it, that is the side of a boundary with the higher train id, and unlabelled pixels stand
    higher than any.
    """
    ids = labels[:, None].float()
    kernel = ids.new_full((1, 1, 3, 3), -1)
    kernel[0, 0, 1, 1] = 8
    fused = torch.zeros_like(ids)
    for stride, weight in zip(STRIDES, FUSION, strict=True):
        response = F.conv2d(ids, kernel, stride=stride, padding=1) > THRESHOLD
        fused += weight * F.interpolate(response.float(), ids.shape[2:], mode="nearest")
    return (fused > THRESHOLD).float()


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 * overlap + 1) / (sum of both + 1) of each frame: `(N, 1, H, W)` both, to `(N,)`."""
    overlap = (probabilities * targets).sum((1, 2, 3))
    both = probabilities.sum((1, 2, 3)) + targets.sum((1, 2, 3))
    return 1 - (2 * overlap + 1) / (both + 1)
