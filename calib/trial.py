"""Trying how much an INT8 model loses with some of its layers left float."""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from roadseg.runtime import Dataset, Sample, Segmenter, compare, sha256_bytes
from roadseg.runtime.backends import Backend

from .correct_bias import correct_bias
from .cost import estimate_ms, layer_seconds
from .gpus import Gpu
from .placement import place
from .quantize import quantize
from .rest import Rest
from .round_weights import round_weights
from .source import load_float_model

Repair = Literal["none", "first weights", "biases"]
"""Of an INT8 model: nothing, the weights of its first layers rounded anew, or biases corrected as well."""
REPAIRS: tuple[Repair, ...] = ("none", "first weights", "biases")
"""The quickest first."""


@dataclasses.dataclass(frozen=True)
class Point:
    """An INT8 model with some layers left float, beside the float model."""

    ranges: str
    """Name of the file that its scales are from."""
    kept: int
    """How many layers are left float."""
    repaired: Repair
    int8_mac_share: float
    """Of the layers' multiply-accumulate operations, those in INT8; in [0, 1]."""
    drop: float
    """Percentage points of mIoU below the float model; without labels, of agreement with it."""
    ci95: tuple[float, float]
    """Of the drop: 95 % bootstrap interval over frames; NaN without labels."""
    estimated_ms: float
    """For one frame on the GPU that was asked for, see `cost`."""


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats: the fastest, and every slower one that loses less than all before it.

    Of points of the same time the one that loses least is one of them.
    """
    least = math.inf
    found = []
    for point in sorted(points, key=lambda point: (point.estimated_ms, point.drop)):
        if point.drop < least:
            found.append(point)
            least = point.drop
    return found


class Remembering:
    """A backend that answers a frame once and knows the answer from then on."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self._backend = backend
        self._known: dict[str, npt.NDArray[np.uint8]] = {}

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8."""
        key = sha256_bytes(frames.tobytes())
        if key not in self._known:
            self._known[key] = self._backend(frames)
        return self._known[key]


def remembering(model: Path) -> Segmenter:
    """A model that is asked once for each frame."""
    opened = Segmenter.open(model)
    return Segmenter(opened.spec, Remembering(opened.backend))


class Trial:
    """A float model, and what is lost when some of its layers run in INT8."""

    def __init__(
        self,
        model: Path,
        samples: Sequence[Sample],
        gpu: Gpu,
        repair: Dataset | None = None,
        rest: Rest = "fp16",
    ) -> None:
        self.model = model
        self.gpu = gpu
        self.repair = repair
        """Frames to repair on, if that may be."""
        self.rest = rest
        self.samples = samples
        self.reference = remembering(model)
        self.layers = tuple(place(load_float_model(model)).int8_outputs)
        self.float_miou: float | None = None
        """Percent; None without labels, and before anything was measured."""

    def of(self, model: Path) -> Trial:
        """The same with a model that answers alike and has the same layers, as `equalise` writes one."""
        other = copy.copy(self)
        other.model = model
        return other

    def measure(self, ranges: Path, kept: Collection[str], repaired: Repair = "none") -> Point:
        """Compare the INT8 model of these ranges in which these layers stay float.

        All layers of `layers` make the float model itself, which is not measured.
        """
        if len(kept) == len(self.layers):
            return Point(ranges.name, len(kept), "none", 0, 0, (0, 0), estimate_ms(self.model, self.gpu))
        with tempfile.TemporaryDirectory() as folder:
            typed = Path(folder) / "int8.onnx"
            share = self.write(typed, ranges, kept, repaired)
            parity = compare(self.reference, Segmenter.open(typed), self.samples)
            cost = estimate_ms(typed, self.gpu)
        self.float_miou = 100 * parity.reference.miou if parity.labelled else None
        low, high = (100 * end for end in parity.ci95)
        return Point(
            ranges.name, len(kept), repaired, share, round(100 * parity.drop, 6), (low, high), round(cost, 4)
        )

    def saved_s(self, ranges: Path) -> dict[str, float]:
        """By how many seconds the kernel of each layer is estimated to be faster in INT8 than in FP16."""
        with tempfile.TemporaryDirectory() as folder:
            half, whole = Path(folder) / "fp16.onnx", Path(folder) / "int8.onnx"
            quantize(self.model, "fp16", out=half)
            quantize(self.model, "int8", out=whole, ranges=ranges, rest=self.rest)
            before, after = (layer_seconds(path, self.gpu) for path in (half, whole))
        return {layer: before[layer] - after[layer] for layer in self.layers}

    def write(self, out: Path, ranges: Path, kept: Collection[str], repaired: Repair) -> float:
        """Write such a model; returns the share of its multiply-accumulate operations that are INT8."""
        if repaired == "none":
            return quantize(self.model, "int8", out=out, ranges=ranges, kept=kept, rest=self.rest).mac_share
        assert self.repair is not None
        with tempfile.TemporaryDirectory() as folder:
            plain, rounded = Path(folder) / "plain.onnx", Path(folder) / "rounded.onnx"
            report = quantize(self.model, "int8", out=plain, ranges=ranges, kept=kept, rest=self.rest)
            last = out if repaired == "first weights" else rounded
            round_weights(self.model, plain, self.repair, out=last, first_only=True)
            if repaired == "biases":
                correct_bias(self.model, rounded, self.repair, out=out)
        return report.mac_share


def pixels_sha256(samples: Sequence[Sample]) -> str:
    """Hash of frames and labels."""
    hashes = (
        sha256_bytes(sample.frame.tobytes() + (b"" if sample.labels is None else sample.labels.tobytes()))
        for sample in samples
    )
    return sha256_bytes(" ".join(hashes).encode())
