"""The one thing every backend does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Backend(Protocol):
    """Answers frames with labels."""

    name: str
    """As reports print it, e.g. "onnxruntime 1.32.0 CPU"."""

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8."""
