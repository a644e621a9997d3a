"""Recipes by network. Where they depart from their source it is said, and why."""

from .accurate import ACCURATE as ACCURATE
from .fast import FAST as FAST
from .lookup import RECIPES as RECIPES
from .lookup import recipe_for as recipe_for
