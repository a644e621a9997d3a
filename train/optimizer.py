"""What a recipe says of its optimizer: which parameters learn how fast, and how that changes over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from roadseg.runtime import UsageError

from .recipe import Group, Recipe

Named = list[tuple[str, nn.Parameter]]
"""Parameters by name."""


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over every parameter of `net`.

    Raises:
        UsageError: if a group of the recipe fits no parameter.
    """
    groups = parameter_groups(net.named_parameters(), recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.rate)
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=0.9, nesterov=recipe.nesterov)


def parameter_groups(parameters: Iterable[tuple[str, nn.Parameter]], recipe: Recipe) -> list[dict[str, Any]]:
    """Groups as `torch.optim` takes them: each parameter once, in the first of the recipe's groups that fits it.

    Raises:
        UsageError: if a group fits none.
    """
    left = list(parameters)
    groups = []
    for group in recipe.groups:
        chosen = [named for named in left if named[0].startswith(group.prefix)]
        if not chosen:
            raise UsageError(
                f"no parameter of the network that the recipe's earlier groups left starts with {group.prefix!r}."
            )
        left = [named for named in left if not named[0].startswith(group.prefix)]
        groups += _split(chosen, group, recipe)
    return groups + _split(left, Group(""), recipe)


def _split(named: Named, group: Group, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters of a group that are decayed, and those that are not."""
    decayed = [p for _, p in named if p.ndim > 1 or recipe.decayed == "all"]
    others = [p for _, p in named if p.ndim <= 1 and recipe.decayed != "all"]
    rate, decay = group.rate * recipe.rate, group.weight_decay * recipe.weight_decay
    return [
        {"params": params, "lr": rate, "weight_decay": weight_decay}
        for params, weight_decay in ((decayed, decay), (others, 0.0))
        if params
    ]


def rate_schedule(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Factor of the rate at each of `steps` steps: a rise, then a fall as the recipe's schedule says."""
    rise = max(1, round(recipe.warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return _rise(recipe, step, rise)
        return _fall(recipe, (step - rise) / max(1, steps - rise)) if step < steps else _fall(recipe, 1.0)

    return factor


def _rise(recipe: Recipe, step: int, steps: int) -> float:
    if recipe.warmup_shape == "exponential":
        return float(recipe.warmup_start ** (1 - step / steps))
    return (step + 1) / steps


def _fall(recipe: Recipe, progress: float) -> float:
    """Factor after the share `progress` of the steps that follow the warm-up."""
    if recipe.schedule == "cosine":
        return recipe.floor + (1 - recipe.floor) * (1 + math.cos(math.pi * progress)) / 2
    if recipe.schedule == "step":
        # A little more, so that a third of three hundred epochs is a hundred whatever rounding does.
        return float(recipe.drop ** int(progress / recipe.drop_every + 1e-9))
    return float((1 - progress) ** recipe.power)
