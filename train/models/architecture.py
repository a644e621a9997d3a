"""A network of the zoo: how it is made, which sizes it takes, and what is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from roadseg.runtime import Size, UsageError


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The input sizes that a network takes: rows and columns are k * multiple + plus."""

    multiple: int
    plus: int = 0
    least: int = 1
    """Rows and columns below which a map would vanish."""

    def nearest(self, size: Size) -> Size:
        """The legal size next to `size`, the larger one of two.

        >>> Sizes(8, 1).nearest((1024, 2048))
        (1025, 2049)
        """
        rows, columns = (self._nearest(n) for n in size)
        return rows, columns

    def _nearest(self, length: int) -> int:
        steps = (length - self.plus + self.multiple // 2) // self.multiple
        fewest = -(-(max(self.least, 1) - self.plus) // self.multiple)
        return max(steps, fewest) * self.multiple + self.plus

    def __str__(self) -> str:
        """As a user reads it.

        >>> str(Sizes(32)), str(Sizes(8, 1, least=249))
        ('32k', '8k+1 from 249')
        """
        from_least = f" from {self.least}" if self.least > 1 else ""
        return f"{self.multiple}k" + (f"+{self.plus}" if self.plus else "") + from_least


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a network is made, and its card."""

    make: Callable[..., nn.Module]
    """Takes `classes`, `aux` (whether to build the heads that only training needs) and what a variant adds."""
    paper: str
    """Authors, venue and arXiv number."""
    published: str
    """mIoU in percent with its conditions and its source; empty where there is none for this network."""
    sizes: Sizes
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Given to `make` beside the above, e.g. the depth of the backbone."""
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Other public forms of the network: arguments in place of `arguments`, by name."""
    note: str = ""
    """What of it is our reading of the paper, where no code is public."""

    def __call__(self, classes: int = 19, aux: bool = False, variant: str = "") -> nn.Module:
        """The network with random weights.

        Raises:
            UsageError: if it has no such variant.
        """
        if variant and variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise UsageError(f"there is no variant {variant!r} of this network; its variants: {known}.")
        changes = self.variants[variant] if variant else {}
        return self.make(classes=classes, aux=aux, **{**self.arguments, **changes})
