"""How a network is trained, as data."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .augment import Augmentation
from .losses import Loss


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that learn at another pace than the rest."""

    prefix: str
    """What their names start with; "" fits every parameter that no earlier group has."""
    rate: float = 1.0
    """Factor of the recipe's rate."""
    weight_decay: float = 1.0
    """Factor of the recipe's weight decay."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run but network, data and seed."""

    augmentation: Augmentation
    loss: Loss = dataclasses.field(default_factory=Loss)
    class_weights: Literal["none", "log", "cityscapes"] = "none"
    """"log": rare classes weigh more, see losses.log_class_weights; "cityscapes": losses.CITYSCAPES_WEIGHTS."""
    epochs: int = 100
    batch: int = 8
    """Frames per step, over all processes."""
    accumulate: int = 1
    """Parts in which each process computes its share of a batch; more take less memory. The gradient is that of
    the whole, but batch norms see a part, and hard pixels are chosen in each."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    rate: float = 0.045
    """Peak learning rate."""
    nesterov: bool = True
    """Whether SGD's momentum, 0.9, looks ahead."""
    weight_decay: float = 4e-5
    decayed: Literal["weights", "all"] = "weights"
    """"weights": those of convolutions and linear layers; "all": batch norms and biases too."""
    groups: tuple[Group, ...] = ()
    """Parameters with another rate; the first that fits a parameter holds."""
    warmup: float = 0.03
    """Share of all steps in which the rate rises."""
    warmup_shape: Literal["linear", "exponential"] = "linear"
    """"linear" starts at zero, "exponential" at `warmup_start`."""
    warmup_start: float = 0.1
    """Share of the peak at which an exponential rise starts."""
    schedule: Literal["poly", "cosine", "step"] = "poly"
    """How the rate falls after the warm-up."""
    power: float = 0.9
    """Of the polynomial with which "poly" falls to zero."""
    floor: float = 0.0
    """Share of the peak at which "cosine" ends."""
    drop: float = 0.5
    """Factor that "step" applies..."""
    drop_every: float = 1 / 3
    """...after each such share of the steps."""
    ema: float = 0.0
    """Decay per step of the averaged weights that are evaluated and saved; 0 takes the last weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network's arithmetic in training; the loss and the weights are single. "auto" takes half on a GPU and
    single on a CPU; "bfloat16" is up to twice as fast on CPUs that have it (`lscpu`: avx512_bf16, amx_bf16)."""
