"""Kernels in Triton's language: run on a GPU or in the interpreter, compiled without either."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from roadseg.runtime import require

Launch = Callable[..., Tensor]
"""From a launchable kernel and the operator's arguments to its answer: allocates it, and calls
`kernel[grid](*pointers and integers, **constants)` once."""


class Kernel:
    """One GPU kernel that computes an operator.

    Its function takes tensors, integers, and whatever else as `tl.constexpr`: a TensorRT plugin that carries its
    PTX with it has no other arguments. `tl` is given to its module when the kernel is first needed, so that
    importing an operator imports no Triton.
    """

    def __init__(self, function: Callable[..., None], launch: Launch) -> None:
        self.function = function
        self._launch = launch

    @functools.cached_property
    def jit(self) -> Any:
        """What Triton launches; in a process with TRITON_INTERPRET=1 the interpreter does."""
        triton = require("triton", f"running {self.function.__name__} on a GPU")
        self.function.__globals__["tl"] = triton.language
        return triton.jit(self.function)

    def __call__(self, *args: Any) -> Tensor:
        """Compute the operator, arguments as in PyTorch."""
        return self._launch(self.jit, *args)
