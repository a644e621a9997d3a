"""Whether ranges fit what a model's tensors do on frames.

What every method finds on the frames is compared with the ranges: the method that they were found by where that is
known, else the one that comes nearest to them. A tensor is off if its range is `WIDE` times that and beyond every
value seen, or a `NARROW`th of it or less and below what any method would take.

Measured with the 49 tensors of Fast-SCNN on CamVid, ranges of 64 frames of `train` by each of the five methods, on
8 to 64 other frames of `train` and of `val`, which is another drive: right ranges were 0.31 to 2.1 times what the
same method found there. On 16 frames of `train` they were 0.40 to 2.03 times that, so that any one of them, made 8
times as large or small, was 3.2 times and more or a quarter and less, and beyond any value or method.

Of other weights a range is seldom off by so much alone, since batch norms keep values alike. Together they are,
see `OTHERS_BITS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

from roadseg.runtime import CalibrationError, Dataset, ModelSpec, read_manifest, sha256_file, track
from roadseg.runtime.onnxfile import onnx_spec

from .cache import INT8_MAX, Ranges
from .methods import METHODS, RULES, Method
from .observe import Frame, Frames
from .placement import Placement, place
from .quantize import ranges_of
from .ranges import Collector
from .source import load_float_model

WIDE = 2.8
"""Times the range found on frames; the root of 8: a right range and one 8 times as large are as far from it."""
NARROW = 3.5
"""Parts of it. More than `WIDE`, because entropy cuts tails off that other frames have."""
OTHERS_BITS = 0.3
"""Root mean square of log2(range / range found) over all tensors from which on ranges are of other weights. On 64
frames of CamVid's `train` 0.06 to 0.19 for right ones, by each method and of 64 other frames; 0.39 to 0.62 for
those of the same network trained on generated scenes, collected on CamVid or on scenes. On fewer frames or another
drive the two overlap: up to 0.34 for right ones on 16 frames, 0.46 on `val`."""
NAMED = 5
"""Tensors that an error names, at most."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A tensor's range beside what frames show."""

    tensor: str
    amax: float
    """Its range."""
    expected: float
    """What the method finds on the frames."""
    least: float
    """What the method that cuts off most finds there."""
    largest: float
    """The largest magnitude there."""

    @property
    def bits(self) -> float:
        """How far the range is off, log2: 3 for one 8 times as large as expected."""
        return float(np.log2(self.amax / self.expected))

    @property
    def is_off(self) -> bool:
        """Whether it is far from what is expected, and from what any method would take."""
        wide = self.amax >= WIDE * self.expected and self.amax > self.largest
        return wide or (self.amax * NARROW <= self.expected and self.amax < self.least)

    def __str__(self) -> str:
        return (
            f'"{self.tensor}" has the range {self.amax:.4g}, where {self.expected:.4g} is expected and '
            f"{self.largest:.4g} the largest value"
        )


@dataclasses.dataclass(frozen=True)
class RangesCheck:
    """Ranges beside what frames show."""

    method: Method
    """That found them, or would have found the nearest ones."""
    images: int
    fits: tuple[Fit, ...]
    """Of each tensor with values other than 0; one for all that share a scale."""

    @property
    def bits(self) -> float:
        """How far the ranges are off together: root mean square of log2."""
        return float(np.sqrt(np.mean([fit.bits**2 for fit in self.fits]))) if self.fits else 0.0

    @property
    def off(self) -> tuple[Fit, ...]:
        """Those that are off, furthest first."""
        return tuple(sorted((f for f in self.fits if f.is_off), key=lambda fit: -abs(fit.bits)))

    def summary(self) -> dict[str, object]:
        """Figures, and the range that is furthest from what is expected."""
        furthest = max(self.fits, key=lambda fit: abs(fit.bits), default=None)
        return {
            "method": self.method,
            "images": self.images,
            "tensors": len(self.fits),
            "rms_bits": round(self.bits, 4),
            "furthest": str(furthest) if furthest else None,
        }

    def raise_for_misfits(self, name: str, frames: str) -> None:
        """Raise CalibrationError if any are off; `name` is of the ranges, `frames` of the data set."""
        if off := self.off:
            named = "; ".join(map(str, off[:NAMED])) + (
                f"; and {len(off) - NAMED} more" if len(off) > NAMED else ""
            )
            raise CalibrationError(
                f"{name} does not fit {self.images} frames of {frames}: of {len(self.fits)} ranges {len(off)} "
                f"{'is' if len(off) == 1 else 'are'} off. {named}. One alone was scaled wrongly, or spoilt; many "
                "are of other weights or other frames. Calibrate again on frames like these."
            )


def check_ranges(
    model: Path, ranges: Path, dataset: Dataset, *, count: int = 16, seed: int = 0, force: bool = False
) -> RangesCheck:
    """Compare a file of ranges with what a model does on frames.

    Args:
        model: float32, as `export` writes it.
        ranges: what `calibrate` or `import_ranges` wrote for it.
        dataset: frames like those that it will see; best the data set that the ranges were collected on.
        count: frames of it, at most.
        seed: of their choice.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if a file cannot be read or is damaged.
        CalibrationError: if the ranges are of another model, or any is off, which is then named.
        DataError: if an image cannot be read.
    """
    found = ranges_of(ranges, model, sha256_file(model))
    method = read_manifest(ranges, "ranges").details.get("method")
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    collector = collect(network, spec, place(network), Frames(dataset, spec, count, seed, force))
    check = compare_ranges(found, collector, method if method in METHODS else None)
    check.raise_for_misfits(str(ranges), dataset.name)
    return check


class Observed(Collector):
    """A collector for every method, which counts its frames."""

    def __init__(self, model: onnx.ModelProto, spec: ModelSpec, placement: Placement) -> None:
        super().__init__(model, spec, placement, METHODS)
        self.images = 0

    def add(self, frame: Frame) -> None:
        """Take in one frame."""
        super().add(frame)
        self.images += 1


def collect(model: onnx.ModelProto, spec: ModelSpec, placement: Placement, frames: Iterable[Frame]) -> Observed:
    """What every method needs to know of some frames."""
    observed = Observed(model, spec, placement)
    for frame in track(frames, "check ranges"):
        observed.add(frame)
    return observed


def compare_ranges(ranges: Ranges, observed: Observed, method: Method | None) -> RangesCheck:
    """Ranges beside what was observed; without a method beside the one that comes nearest to them.

    Raises:
        CalibrationError: if a tensor has no range.
    """
    found = {each: observed.ranges(each).amax for each in METHODS}
    seen = [name for name in representatives(ranges, observed.placement) if is_seen(observed, name)]
    amax = {name: float(ranges.scale(name)) * INT8_MAX for name in seen}

    def distance(each: Method) -> float:
        return float(np.median([abs(np.log2(amax[name] / found[each][name])) for name in seen] or [0]))

    nearest = min(METHODS, key=distance) if method is None else method
    fits = (
        Fit(
            tensor=name,
            amax=amax[name],
            expected=found[nearest][name],
            least=min(found[each][name] for each in METHODS),
            largest=found["minmax"][name],
        )
        for name in seen
    )
    return RangesCheck(nearest, observed.images, tuple(fits))


def representatives(ranges: Ranges, placement: Placement) -> list[str]:
    """Of the tensors that share a scale the one with the largest range, and all others; in graph order."""
    tied = set().union(*placement.groups)
    largest = {max(sorted(group), key=lambda name: ranges.amax.get(name, 0)) for group in placement.groups}
    return [name for name in placement.activations if name in largest or name not in tied]


def is_seen(observed: Observed, tensor: str) -> bool:
    """Whether a tensor, or one that shares its scale, had any value other than 0."""
    group = next((group for group in observed.placement.groups if tensor in group), frozenset([tensor]))
    rule = RULES["minmax"]
    return any(rule.amax(observed.statistics[name][rule.statistic]) > 0 for name in group)
