"""What a network returns in training when it has more than class logits to learn."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """Class logits with the maps of a boundary or detail branch."""

    logits: list[Tensor]
    """`(N, classes, h, w)` each, the main one first."""
    edges: list[Tensor]
    """`(N, 1, h, w)` each: logits of "a boundary runs here"."""
