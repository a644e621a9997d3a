"""For each tensor the range, of those that several methods found, that changes a model's answers least.

No method is the best for all tensors: what one cuts off matters in one layer and not in the next. Beginning with
the file that does the least harm as a whole, tensor after tensor is tried with the range of every other file, and
keeps the best one while the next is tried. Tensors with a common scale are one.

Harm is the divergence from the float32 model on a few frames, see `Divergence`. Scales are fed to the model, so
that it is opened once however many are tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from roadseg.runtime import (
    CalibrationError,
    Dataset,
    ModelSpec,
    UsageError,
    read_manifest,
    sha256_file,
    track,
)
from roadseg.runtime.onnxfile import onnx_spec

from .cache import Calibrator, Ranges, save_ranges
from .calibrate import RangesDetails
from .choose import ImageList
from .divergence import Divergence
from .methods import Method
from .observe import Frame, Frames
from .placement import Placement, place
from .qdq import insert_qdq, scale_name
from .quantize import ranges_of
from .source import load_float_model

CALIBRATOR: Calibrator = "EntropyCalibration2"
"""That TensorRT's builders take unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class ChosenDetails:
    """What the manifest of chosen ranges tells beside hashes and spec."""

    methods: dict[str, Method]
    """By which method each tensor's range was found, by tensor."""
    sources: dict[Method, str]
    """SHA-256 of the ranges that there were to choose from, by method."""
    images: ImageList
    """That the choice was made on."""
    divergences: dict[Method, float]
    """Of each file as a whole from the float32 model, as in `ChoiceReport`."""
    divergence: float
    """Of the choice."""


@dataclasses.dataclass(frozen=True)
class ChoiceReport:
    """Ranges as they were chosen and written."""

    path: Path
    sha256: str
    images: int
    """How many were seen; fewer than asked for where the data set has no more."""
    images_sha256: str
    """Of their names and pixels."""
    tensors: dict[Method, int]
    """How many have the range of a method, by method."""
    divergences: dict[Method, float]
    """Mean Kullback-Leibler divergence of a position's class probabilities from those of the float32 model, in
    nats, with all ranges by one method."""
    divergence: float
    """The same with the chosen ranges; never more than the least of the others."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A file to choose from."""

    ranges: Ranges
    sha256: str


class Harm:
    """A float32 model, and how far its INT8 form is from it with given ranges."""

    def __init__(self, network: onnx.ModelProto, spec: ModelSpec, frames: Iterable[Frame], ranges: Ranges) -> None:
        """Answer `frames` once as float32; `ranges` are any that fit. Errors as in `Divergence`."""
        self._divergence = Divergence(network, spec, frames)
        self._session = self._divergence.open(with_open_scales(network, ranges))

    def divergence(self, ranges: Ranges, limit: float = math.inf) -> float:
        """The mean over positions and frames, in nats; infinite where it is at least `limit`.

        Raises:
            CalibrationError: if a logit is not finite.
        """
        scales = {scale_name(tensor): np.array(ranges.scale(tensor)) for tensor in ranges.amax}
        return self._divergence.of(self._session, scales, limit)


def choose_ranges(
    model: Path,
    ranges: Sequence[Path],
    dataset: Dataset,
    *,
    out: Path,
    count: int = 8,
    seed: int = 0,
    force: bool = False,
) -> ChoiceReport:
    """Write ranges, as `calibrate` does, that are for each tensor those of the file which harms the answers least.

    Args:
        model: float32, as `export` writes it.
        ranges: what `calibrate` wrote for this very model, by different methods.
        dataset: of which images are chosen to measure on, see `choose`.
        out: the file to write, with a manifest that names the method of every tensor.
        count: images to take, at most; the work grows with them.
        seed: of the choice of images.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if a file cannot be read, is damaged, or is no model or no ranges.
        CalibrationError: if the images may not be used, ranges are of another model or of other tensors, were
            chosen already, or are by the same method; or a value is not finite.
        DataError: if an image cannot be read.
        UsageError: if there are fewer than two files.
    """
    network = load_float_model(model)
    spec, placement = onnx_spec(network, model), place(network)
    inputs = {"onnx": sha256_file(model)}
    sources = read_sources(ranges, model, inputs["onnx"], placement)
    frames = Frames(dataset, spec, count, seed, force)
    images = frames.listed()
    harm = Harm(network, spec, frames, next(iter(sources.values())).ranges)
    divergences = {method: harm.divergence(source.ranges) for method, source in sources.items()}
    methods, least = search_methods(harm, sources, divergences, units(placement))
    hashes = {method: source.sha256 for method, source in sources.items()}
    details = ChosenDetails(methods, hashes, images, divergences, least)
    inputs |= {"images": images.sha256, **{f"{method}_ranges": sha256 for method, sha256 in hashes.items()}}
    combined = combine(sources, methods)
    sha256 = save_ranges(out, combined, spec, inputs=inputs, details=details, library="onnxruntime")
    counts = dict(Counter(methods.values()))
    return ChoiceReport(out, sha256, len(frames), images.sha256, counts, divergences, least)


def read_sources(
    paths: Sequence[Path], model: Path, model_sha256: str, placement: Placement
) -> dict[Method, Source]:
    """The ranges to choose from, by method; errors as in `choose_ranges`."""
    if len(paths) < 2:
        raise UsageError(
            f"a choice needs the ranges of two methods or more, got {len(paths)} file; "
            "`roadseg calibrate --method entropy,mse` writes several."
        )
    sources: dict[Method, Source] = {}
    for path in paths:
        found = ranges_of(path, model, model_sha256)
        method = method_of(path)
        if method in sources:
            raise CalibrationError(f"{path} is by {method}, like another file; give one for each method.")
        if other := sorted(set(found.amax) ^ set(placement.activations)):
            raise CalibrationError(
                f'{path} does not hold the ranges of just the tensors that are quantised in {model} ("{other[0]}" '
                "is in one of them alone). Calibrate again."
            )
        sources[method] = Source(found, sha256_file(path))
    return sources


def method_of(path: Path) -> Method:
    """By which method ranges were collected.

    Raises:
        ArtifactError: if the manifest does not say so.
        CalibrationError: if they were chosen tensor by tensor, or learned.
    """
    manifest = read_manifest(path, "ranges")
    if "methods" in manifest.details:
        raise CalibrationError(
            f"{path} was chosen tensor by tensor already; give the files that it was chosen from."
        )
    method = manifest.details_as(RangesDetails).method
    if method == "learned":
        raise CalibrationError(
            f"{path} was learned with the weights; it is for that model what nothing else can be."
        )
    return method


def units(placement: Placement) -> list[tuple[str, ...]]:
    """The tensors of each scale, in graph order of the first of them."""
    groups = {name: group for group in placement.groups for name in group}
    order = {name: position for position, name in enumerate(placement.activations)}
    return list(
        dict.fromkeys(
            tuple(sorted(groups.get(name, {name}), key=order.__getitem__)) for name in placement.activations
        )
    )


def search_methods(
    harm: Harm,
    sources: Mapping[Method, Source],
    divergences: Mapping[Method, float],
    units: Sequence[tuple[str, ...]],
) -> tuple[dict[str, Method], float]:
    """A method for each tensor, and how far the model then is from float32: one sweep over the units."""
    first = min(divergences, key=divergences.__getitem__)
    methods = dict.fromkeys((name for unit in units for name in unit), first)
    least = divergences[first]
    for unit in track(units, "choose ranges"):
        tried = {sources[first].ranges.amax[unit[0]]}
        for method, source in sources.items():
            if source.ranges.amax[unit[0]] in tried:
                continue
            tried.add(source.ranges.amax[unit[0]])
            trial = methods | dict.fromkeys(unit, method)
            divergence = harm.divergence(combine(sources, trial), least)
            if divergence < least:
                methods, least = trial, divergence
    return methods, least


def combine(sources: Mapping[Method, Source], methods: Mapping[str, Method]) -> Ranges:
    """Of each tensor the range by its method."""
    return Ranges({name: sources[method].ranges.amax[name] for name, method in methods.items()}, CALIBRATOR)


def with_open_scales(network: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
    """The INT8 form of a model that takes the scales of its activations as further inputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(network)
    insert_qdq(opened, ranges)
    scales = [scale_name(tensor) for tensor in ranges.amax]
    kept = [tensor for tensor in opened.graph.initializer if tensor.name not in scales]
    del opened.graph.initializer[:]
    opened.graph.initializer.extend(kept)
    opened.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in scales)
    return opened
