"""Random weights that behave like trained ones, for tests and measurements."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def randomise(net: nn.Module, images: Tensor, seed: int = 0) -> None:
    """Give every batch norm the statistics of `images`, disturbed, and a random scale and shift.

    With the statistics that a network is made with (mean 0, variance 1) activations grow from block to block, and
    an error in folding them would not show.

    Args:
        net: left in evaluation mode.
        images: normalised `(N, 3, H, W)`, N at least 2.
        seed: of what is random here.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.8, 1.2, generator=generator)
        # Mostly open ReLUs: with half of them shut, each layer of random weights magnifies rounding by a fifth.
        nn.init.normal_(norm.bias, 0.5, 0.1, generator=generator)
        norm.momentum = 1.0
    net.train()(images)
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        norm.momentum = 0.1
        # A norm behind a global pool saw one value per image: alike in all of them, it would magnify rounding.
        torch.maximum(variance, 0.1 * mean.square(), out=variance)
        mean += 0.1 * variance.sqrt() * torch.randn(mean.shape, generator=generator)
        variance *= 0.8 + 0.4 * torch.rand(mean.shape, generator=generator)
    net.eval()
