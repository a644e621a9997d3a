"""TensorRT-RTX: the same interface as TensorRT, for plans made ahead of time for GeForce and RTX GPUs."""

from __future__ import annotations

from typing import ClassVar

from ..plan import FlavourName
from .tensorrt import TensorRTBackend


class TensorRTRTXBackend(TensorRTBackend):
    """Runs a TensorRT-RTX plan; opening one compiles its kernels for the GPU, which takes seconds."""

    flavour: ClassVar[FlavourName] = "rtx"
