"""What GPUs can do at most: what a cost estimate is made of.

Rates are dense multiply-adds per clock of one multiprocessor, from NVIDIA's whitepapers on Turing, Ampere
(GA100 and GA102), Ada and Hopper; Orin's from the 85 dense INT8 TOPS of its 16 multiprocessors at 1.3 GHz
(Jetson AGX Orin technical brief); Thor's from its 1035 sparse FP8 TFLOPS at 1.575 GHz, with INT8 taken to be as
fast as FP8.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from roadseg.runtime import UsageError

Type = Literal["fp32", "fp16", "int8"]


@dataclasses.dataclass(frozen=True)
class Rates:
    """Multiply-adds that one multiprocessor does in a clock."""

    tensor: dict[Type, int]
    """Of dense matrices; FP32 as TF32 where there is that, on CUDA cores otherwise."""
    vector: dict[Type, int]
    """On CUDA cores, where depthwise convolutions run."""


TURING = Rates({"fp32": 64, "fp16": 512, "int8": 1024}, {"fp32": 64, "fp16": 128, "int8": 128})
GA100 = Rates({"fp32": 512, "fp16": 1024, "int8": 2048}, {"fp32": 64, "fp16": 256, "int8": 256})
GA102 = Rates({"fp32": 256, "fp16": 512, "int8": 1024}, {"fp32": 128, "fp16": 128, "int8": 128})
ORIN = Rates({"fp32": 512, "fp16": 1024, "int8": 2048}, {"fp32": 128, "fp16": 256, "int8": 256})
HOPPER = Rates({"fp32": 1024, "fp16": 2048, "int8": 4096}, {"fp32": 128, "fp16": 256, "int8": 256})
THOR = Rates({"fp32": 2048, "fp16": 4096, "int8": 8192}, {"fp32": 128, "fp16": 256, "int8": 256})


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU at its highest clocks."""

    name: str
    compute_capability: str
    multiprocessors: int
    clock_ghz: float
    bandwidth_gb_s: float
    """Of its memory, 10^9 bytes per second."""
    rates: Rates

    def mac_per_s(self, kind: Type, vector: bool = False) -> float:
        """Multiply-adds per second."""
        per_clock = (self.rates.vector if vector else self.rates.tensor)[kind]
        return per_clock * self.multiprocessors * self.clock_ghz * 1e9


GPUS = {
    "orin_agx": Gpu("Jetson AGX Orin 64GB", "8.7", 16, 1.3, 204.8, ORIN),
    "orin_nx": Gpu("Jetson Orin NX 16GB", "8.7", 8, 0.918, 102.4, ORIN),
    "orin_nano": Gpu("Jetson Orin Nano 8GB", "8.7", 8, 0.625, 68.0, ORIN),
    "thor": Gpu("Jetson Thor T5000", "11.0", 20, 1.575, 273.0, THOR),
    "t4": Gpu("T4", "7.5", 40, 1.59, 320.0, TURING),
    "a40": Gpu("A40", "8.6", 84, 1.74, 696.0, GA102),
    "rtx3090": Gpu("GeForce RTX 3090", "8.6", 82, 1.695, 936.0, GA102),
    "l4": Gpu("L4", "8.9", 58, 2.04, 300.0, GA102),
    "a100": Gpu("A100 SXM 80GB", "8.0", 108, 1.41, 2039.0, GA100),
    "h100": Gpu("H100 SXM", "9.0", 132, 1.83, 3350.0, HOPPER),
}
"""Data sheets' figures, by the name that `--target` takes."""


def find_gpu(name: str) -> Gpu:
    """A GPU by its name.

    Raises:
        UsageError: if it is unknown.
    """
    if name not in GPUS:
        raise UsageError(f"no GPU {name!r} is known; take one of {', '.join(GPUS)}.")
    return GPUS[name]
