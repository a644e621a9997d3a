"""The recipe of a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from roadseg.runtime import UsageError
from roadseg.runtime.settings import read_settings

from ..recipe import Recipe
from .accurate import ACCURATE
from .fast import FAST

RECIPES = {**ACCURATE, **FAST}
"""By key of MODELS."""


def recipe_for(net: str, changes: Path | None = None, epochs: int | None = None) -> Recipe:
    """The recipe of a network, with what a TOML file changes in it, and for so many epochs.

    A variant ("key@variant") has its network's recipe.

    Raises:
        UsageError: if there is no such network, or the file has a setting that no recipe has.
    """
    key = net.partition("@")[0]
    if key not in RECIPES:
        raise UsageError(f"there is no recipe for {net!r}; known are {', '.join(RECIPES)}.")
    recipe = RECIPES[key]
    if changes:
        recipe = read_settings(changes, Recipe, msgspec.to_builtins(recipe))
    return dataclasses.replace(recipe, epochs=epochs) if epochs else recipe
