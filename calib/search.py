"""Which layers have to stay float32 so that an INT8 model keeps its accuracy."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from roadseg.runtime import (
    CalibrationError,
    Dataset,
    Sample,
    Segmenter,
    UsageError,
    compare,
    sha256_bytes,
    sha256_file,
    track,
    write_atomically,
)
from roadseg.runtime.backends import Backend

from .graph import Graph
from .placement import place
from .quantize import quantize
from .source import load_float_model


@dataclasses.dataclass(frozen=True)
class Point:
    """An INT8 model with some layers left float, beside the float model."""

    kept: int
    """How many layers are left float."""
    int8_mac_share: float
    """Of the layers' multiply-accumulate operations, those in INT8; in [0, 1]."""
    drop: float
    """Percentage points of mIoU below the float model; without labels, of agreement with it."""
    ci95: tuple[float, float]
    """Of the drop: 95 % bootstrap interval over frames."""


@dataclasses.dataclass(frozen=True)
class SearchReport:
    """What was found."""

    path: Path
    """The INT8 model."""
    sha256: str
    layers: Path
    """TOML file with the layers that stay float; edit it and give it to `quantize` to have others."""
    frames: int
    float_miou: float | None
    """Percent; None without labels."""
    budget: float
    chosen: Point
    points: tuple[Point, ...]
    """All that were measured, from everything in INT8 on."""
    kept: dict[str, float]
    """The layers that stay float: the drop that each of them causes alone in INT8."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """Content of a layers file."""

    kept: tuple[str, ...] = ()
    """Layers that stay float32, by output tensor."""


@dataclasses.dataclass(frozen=True)
class Sensitivities:
    """What each layer costs alone, as kept on disk between runs."""

    key: str
    """Hash of what the figures depend on."""
    drops: dict[str, float]


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


class Trial:
    """A float model, and what is lost when some of its layers run in INT8."""

    def __init__(self, model: Path, ranges: Path, samples: Sequence[Sample]) -> None:
        self._model = model
        self._ranges = ranges
        self.samples = samples
        opened = Segmenter.open(model)
        self.reference = Segmenter(opened.spec, Remembering(opened.backend))
        network = load_float_model(model)
        self.layers = tuple(place(network).int8_outputs)
        macs = Graph(network).layer_macs()
        self.macs = {layer: macs[layer] for layer in self.layers}
        self.float_miou: float | None = None
        """Percent; None without labels, and before anything was measured."""

    def measure(self, kept: Collection[str]) -> Point:
        """Compare the INT8 model in which these layers stay float; all of them make the float model itself."""
        if len(kept) == len(self.layers):
            return Point(len(kept), 0, 0, (0, 0))
        with tempfile.TemporaryDirectory() as folder:
            typed = Path(folder) / "int8.onnx"
            report = quantize(self._model, "int8", out=typed, ranges=self._ranges, kept=kept)
            parity = compare(self.reference, Segmenter.open(typed), self.samples)
        self.float_miou = 100 * parity.reference.miou if parity.labelled else None
        low, high = (100 * end for end in parity.ci95)
        return Point(len(kept), report.mac_share, round(100 * parity.drop, 6), (low, high))


def search(
    model: Path,
    ranges: Path,
    dataset: Dataset,
    *,
    budget: float,
    out: Path,
    count: int | None = None,
) -> SearchReport:
    """Write the INT8 model that loses at most `budget`, with as few operations left in float as a ranking allows.

    If everything in INT8 is too bad, every layer is tried alone in INT8. Layers go back to float in the order of
    what they lose per operation, as few of them as the budget asks for. What has been measured is kept in a file
    beside `out`, so that an interrupted search goes on. The frames stay in memory, because every trial reads them.

    Args:
        model: float32, as `export` writes it.
        ranges: what `calibrate` wrote for it.
        dataset: to measure on; with labels mIoU is, without them agreement with the float model.
        budget: percentage points that may be lost.
        out: the INT8 model; the layers that stay float go beside it, as `.layers.toml`.
        count: frames of the data set to take; all without it.

    Raises:
        ArtifactError: if a file cannot be read, is damaged, or is no model or no ranges.
        CalibrationError: if the model is typed already or has nothing to quantise, or the ranges are of another.
        UsageError: if there are no frames, or the budget is negative.
    """
    samples = list(islice(dataset, count))
    if not samples or budget < 0:
        raise UsageError(
            f"a search needs frames, and a budget of 0 or more points; got {len(samples)}, {budget:g}."
        )
    trial = Trial(model, ranges, samples)
    points = {0: trial.measure(())}
    drops: dict[str, float] = {}
    if points[0].drop > budget:
        key = sha256_bytes(f"{sha256_file(model)} {sha256_file(ranges)} {pixels_sha256(samples)}".encode())
        drops = measure_alone(trial, out.with_suffix(".sensitivity.json"), key)
    ranked = sorted(drops, key=lambda layer: drops[layer] / max(trial.macs[layer], 1), reverse=True)

    def enough(count: int) -> bool:
        if count not in points:
            points[count] = trial.measure(ranked[:count])
        return points[count].drop <= budget

    chosen = fewest(len(ranked), enough)
    if chosen == len(trial.layers):
        raise CalibrationError(
            f"no INT8 model of {model} loses at most {budget:g} points with these ranges: even "
            f"{ranked[-1]} alone loses {drops[ranked[-1]]:.2f}. Calibrate by another method, or use FP16."
        )
    kept = {layer: drops[layer] for layer in ranked[:chosen]}
    layers = out.with_suffix(".layers.toml")
    written = quantize(model, "int8", out=out, ranges=ranges, kept=kept)
    write_atomically(layers, layers_text(kept).encode())
    return SearchReport(
        path=out,
        sha256=written.sha256,
        layers=layers,
        frames=len(samples),
        float_miou=trial.float_miou,
        budget=budget,
        chosen=points[chosen],
        points=tuple(points[count] for count in sorted(points)),
        kept=kept,
    )


def measure_alone(trial: Trial, memory: Path, key: str) -> dict[str, float]:
    """What every layer loses when it alone runs in INT8, in points; a file keeps what was measured before."""
    known = recall(memory, key)
    for layer in track(trial.layers, "try every layer alone"):
        if layer not in known:
            known[layer] = trial.measure([other for other in trial.layers if other != layer]).drop
            write_atomically(memory, msgspec.json.encode(Sensitivities(key, known)))
    return known


def recall(memory: Path, key: str) -> dict[str, float]:
    """What a file has of the same model, ranges and frames; nothing where there is none, or it is of others."""
    try:
        found = msgspec.json.decode(memory.read_bytes(), type=Sensitivities)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return found.drops if found.key == key else {}


def fewest(most: int, enough: Callable[[int], bool]) -> int:
    """The smallest number from 0 to `most` that is enough, if more is never less; `most` is not asked about.

    >>> fewest(8, lambda number: number >= 3)
    3
    """
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def layers_text(kept: dict[str, float]) -> str:
    """A layers file: each layer with what it loses alone."""
    lines = [f"    {msgspec.json.encode(layer).decode()},  # {drop:.3f} points" for layer, drop in kept.items()]
    return "\n".join(
        ["# Layers that stay float32, the most harmful per operation first.", "kept = [", *lines, "]", ""]
    )


def pixels_sha256(samples: Sequence[Sample]) -> str:
    """Hash of frames and labels."""
    hashes = (
        sha256_bytes(sample.frame.tobytes() + (b"" if sample.labels is None else sample.labels.tobytes()))
        for sample in samples
    )
    return sha256_bytes(" ".join(hashes).encode())
