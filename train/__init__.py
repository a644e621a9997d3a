"""Networks, data sets and training. Names that need torch are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

from .data import open_data as open_data

if TYPE_CHECKING:
    from .augment import Augmentation as Augmentation
    from .checkpoint import Checkpoint as Checkpoint
    from .checkpoint import find_checkpoint as find_checkpoint
    from .checkpoint import load_checkpoint as load_checkpoint
    from .checkpoint import load_network as load_network
    from .checkpoint import load_weights as load_weights
    from .checkpoint import read_weights as read_weights
    from .checkpoint import save_checkpoint as save_checkpoint
    from .loop import Run as Run
    from .loop import train as train
    from .losses import Loss as Loss
    from .models import MODELS as MODELS
    from .models import build as build
    from .multiscale import MultiScale as MultiScale
    from .multiscale import open_multiscale as open_multiscale
    from .official import SOURCES as SOURCES
    from .official import Imported as Imported
    from .official import import_checkpoint as import_checkpoint
    from .recipe import Group as Group
    from .recipe import Recipe as Recipe
    from .recipes import RECIPES as RECIPES
    from .recipes import recipe_for as recipe_for

HOMES = {
    "Augmentation": "augment",
    "Checkpoint": "checkpoint",
    "Group": "recipe",
    "Imported": "official",
    "Loss": "losses",
    "MODELS": "models",
    "RECIPES": "recipes",
    "MultiScale": "multiscale",
    "Recipe": "recipe",
    "Run": "loop",
    "SOURCES": "official",
    "build": "models",
    "find_checkpoint": "checkpoint",
    "import_checkpoint": "official",
    "load_checkpoint": "checkpoint",
    "load_network": "checkpoint",
    "load_weights": "checkpoint",
    "open_multiscale": "multiscale",
    "read_weights": "checkpoint",
    "recipe_for": "recipes",
    "save_checkpoint": "checkpoint",
    "train": "loop",
}
"""Module of each name that needs torch, so that reading a data set does not."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
