"""How long a model takes from frame to labels."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .progress import track
from .segmenter import Segmenter


@dataclasses.dataclass(frozen=True)
class Latency:
    """Raw samples with their conditions."""

    samples_ms: tuple[float, ...]
    """One per call, in order."""
    conditions: dict[str, str]
    """What the figures are true of."""

    def percentile_ms(self, share: float) -> float:
        """The latency that `share` percent of the samples do not exceed, interpolated."""
        return float(np.percentile(self.samples_ms, share))


def measure(
    segmenter: Segmenter, frames: Sequence[npt.NDArray[np.uint8]], *, warmup: int = 3, repeats: int = 1
) -> Latency:
    """Time one frame after another (single stream, batch 1), from host frame to host labels.

    Args:
        segmenter: what is timed.
        frames: `(height, width, 3)` uint8 RGB each, at the model's size; taken in turn, so that inputs change.
        warmup: calls before the first sample.
        repeats: how often all frames are gone through.

    Raises:
        UsageError: if there are no frames.
    """
    if not len(frames) * repeats:
        raise UsageError("a latency needs at least one frame to be measured on.")
    for i in range(warmup):
        segmenter.segment(frames[i % len(frames)])
    samples = [time_call(segmenter, f) for f in track(list(frames) * repeats, f"time {segmenter.backend.name}")]
    return Latency(tuple(samples), conditions(segmenter, warmup))


def time_call(segmenter: Segmenter, frame: npt.NDArray[np.uint8]) -> float:
    """Milliseconds of one call; every backend returns only once the labels are on the host."""
    begun = time.perf_counter()
    segmenter.segment(frame)
    return 1000 * (time.perf_counter() - begun)


def conditions(segmenter: Segmenter, warmup: int) -> dict[str, str]:
    """What a latency of this model here depends on."""
    return {
        "backend": segmenter.backend.name,
        "network": segmenter.spec.name,
        "size": f"{segmenter.spec.height}x{segmenter.spec.width}",
        "batch": "1",
        "scenario": "single_stream, host frame to host labels",
        "warmup": f"{warmup} calls",
        "processor": processor(),
        "cores": str(os.cpu_count()),
    }


def processor() -> str:
    """The processor's own name, or its architecture where Linux does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
