"""What may be asked of a builder, beyond the model and the GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from roadseg.runtime.plan import Precision


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to build; the defaults suit all but a Jetson with an old TensorRT."""

    max_batch: int = 1
    """Frames in one call, at most; counts where the model leaves it open."""
    workspace_bytes: int | None = None
    """Scratch memory a layer may use; None is all that the GPU has."""
    timing_cache: Path | None = None
    """Kernel timings to read where the file exists, and to write. TensorRT only, not TensorRT-RTX."""
    precision: Precision | None = None
    """In place of the graph's own. TensorRT before 10.12 only."""
    ranges: Path | None = None
    """What `roadseg calibrate` wrote, for INT8 without Q/DQ nodes. TensorRT before 10.12 only."""
    plugins: Literal["auto", "require", "never"] = "auto"
    """Whether custom operators become plugins: where that can be, or else the build fails, or never."""
    kernels: Path | None = None
    """What `roadseg kernels` wrote; None is what stands beside the model, `m.kernels` beside `m.onnx`. TensorRT
    only."""
