"""Recipes by network. Where they depart from the paper it is said, and why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from roadseg.runtime import UsageError
from roadseg.runtime.settings import read_settings

from .augment import Augmentation
from .losses import Loss
from .recipe import Recipe

FASTSCNN = Recipe(
    # The paper (arXiv 1902.04502) trains 1000 epochs with SGD at 0.045. On two CPU cores there is time for a tenth
    # of that: AdamW converges faster, averaged weights stand in for the long tail of the schedule, and the loss
    # reads every second row and column because full resolution costs more than the network itself.
    Augmentation(crop=(288, 384)),
    Loss(stride=2),
    class_weights="log",
    epochs=110,
    batch=8,
    optimizer="adamw",
    rate=3e-3,
    weight_decay=0.02,
    ema=0.99,
)

BISENET_R18 = Recipe(
    # ycszen/TorchSeg, model/bisenet/cityscapes.bisenet.R18: crop 1024, OHEM 0.7, both auxiliary heads at weight 1,
    # scales 0.75 to 2, SGD 0.01, 80 epochs of 1000 steps at batch 16.
    Augmentation(crop=(1024, 1024), scale=(0.75, 2.0)),
    Loss("ohem", aux_weight=1.0),
    epochs=430,
    batch=16,
    optimizer="sgd",
    rate=0.01,
    weight_decay=5e-4,
)

RECIPES = {"fastscnn": FASTSCNN, "bisenet_r18": BISENET_R18}
"""By key of MODELS."""


def recipe_for(net: str, changes: Path | None = None, epochs: int | None = None) -> Recipe:
    """The recipe of a network, with what a TOML file changes in it, and for so many epochs.

    Raises:
        UsageError: if there is no such network, or the file has a setting that no recipe has.
    """
    if net not in RECIPES:
        raise UsageError(f"there is no recipe for {net!r}; known are {', '.join(RECIPES)}.")
    recipe = RECIPES[net]
    if changes:
        recipe = read_settings(changes, Recipe, msgspec.to_builtins(recipe))
    return dataclasses.replace(recipe, epochs=epochs) if epochs else recipe
