"""The one thing every pass does."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir


class Pass(Protocol):
    """A change to a graph that leaves what it computes as it was."""

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        """Return the model, which may be the one given, and whether anything changed."""
