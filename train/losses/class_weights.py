"""How much a pixel of each class counts."""

from __future__ import annotations

import torch
from torch import Tensor

CITYSCAPES_WEIGHTS = (
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip
"""By Cityscapes train id: the figures of OCNet (openseg-group/OCNet.pytorch, utils/criterion.py), which HRNet,
PIDNet and Tramac/Fast-SCNN-pytorch have too."""


def log_class_weights(counts: Tensor) -> Tensor:
    """Weights `(C,)` from pixel counts `(C,)`: 1 / ln(1.02 + share), as in ENet (arXiv 1606.02147), mean 1."""
    weights = 1 / torch.log(1.02 + counts / counts.sum())
    return weights / weights.mean()
