"""How a network is trained, as data."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .augment import Augmentation
from .losses import Loss


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run but network, data and seed."""

    augmentation: Augmentation
    loss: Loss = dataclasses.field(default_factory=Loss)
    class_weights: Literal["none", "log"] = "none"
    """"log": rare classes weigh more, see losses.log_class_weights."""
    epochs: int = 100
    batch: int = 8
    """Frames per step, over all processes."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.045
    """Peak learning rate."""
    weight_decay: float = 4e-5
    warmup: float = 0.03
    """Share of all steps in which the rate rises linearly from zero."""
    power: float = 0.9
    """Of the polynomial with which the rate falls to zero afterwards."""
    ema: float = 0.0
    """Decay per step of the averaged weights that are evaluated and saved; 0 takes the last weights."""
