"""What the recipes share. Figures are for Cityscapes, whose train split has 2975 frames."""

from __future__ import annotations

from ..augment import Augmentation
from ..losses import Loss
from ..recipe import Recipe

FRAMES = 2975
"""Of Cityscapes train."""


def epochs(iterations: int, batch: int) -> int:
    """Epochs of Cityscapes in which a source's iterations are done.

    >>> epochs(40_000, 8)
    108
    """
    return round(iterations * batch / FRAMES)


def crops(rows: int, columns: int, scale: tuple[float, float], jitter: float = 0.0) -> Augmentation:
    """Crops of scaled and mirrored frames; `jitter` is of brightness, contrast and saturation.

    Sources that draw the scale from a list or uniformly get it log-uniformly here, from the same range. Their blur
    and rotation are left out.
    """
    return Augmentation((rows, columns), scale, brightness=jitter, contrast=jitter, saturation=jitter)


PLAIN = Recipe(
    crops(769, 769, (0.5, 2.0)),
    Loss(),
    batch=8,
    rate=0.01,
    nesterov=False,
    weight_decay=5e-4,
    decayed="all",
    warmup=0.0,
)
"""SGD as most sources have it: momentum without looking ahead, poly 0.9, no warm-up, every parameter decayed."""
