"""Random choices that come out the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Random numbers from PCG64, seeded by a sequence of whole numbers.

    Only `random` and `integers` are drawn from the generator and the rest is plain arithmetic in Python: NumPy's
    `uniform` and `normal` are compiled expressions, which some processors round differently.
    """

    def __init__(self, *seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.generator.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.generator.random() < probability

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.chance(0.5) else -1

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.whole(0, len(options) - 1)]

    def weigh(self, weights: Mapping[T, float]) -> T:
        """One of the keys, as likely as its weight."""
        rest = self.generator.random() * sum(weights.values())
        for option, weight in weights.items():
            rest -= weight
            if rest < 0:
                return option
        return option
