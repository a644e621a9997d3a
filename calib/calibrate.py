"""From a model and a data set to ranges with a manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from roadseg.runtime import Dataset, sha256_file, track
from roadseg.runtime.onnxfile import onnx_spec
from roadseg.runtime.pixels import fit

from .cache import save_ranges
from .channel_order import refuse_swapped
from .choose import ImageList, choose
from .cover import cover
from .methods import Method
from .placement import place
from .ranges import Collector
from .source import load_float_model
from .state import load_state, save_state, state_key, state_path
from .survey import Coverage, survey

SAVE_EVERY = 16
"""Images between two writings of the state, which take some hundredths of a second each."""


@dataclasses.dataclass(frozen=True)
class RangesDetails:
    """What the manifest of ranges tells beside hashes and spec."""

    method: Method | Literal["learned"]
    """How ranges were taken from the values seen; "learned" where `finetune` moved them."""
    images: ImageList
    coverage: Coverage


@dataclasses.dataclass(frozen=True)
class CalibrationReport:
    """Ranges as they were written."""

    path: Path
    sha256: str
    method: Method
    images: int
    """How many were seen; fewer than asked for where the data set has no more."""
    images_sha256: str
    """Of their names and pixels."""
    tensors: int
    """How many have a range."""
    coverage: Coverage
    """What the images show, and what they lack."""


def calibrate(
    model: Path,
    dataset: Dataset,
    *,
    out: Path,
    count: int = 64,
    method: Method = "entropy",
    seed: int = 0,
    force: bool = False,
    check_colours: bool = True,
) -> CalibrationReport:
    """Collect the ranges that `quantize` needs, and write them as a TensorRT calibration cache with a manifest.

    Args:
        model: float32, as `export` writes it.
        dataset: of which images are chosen, see `choose` and `cover`.
        out: the file to write; nothing is written unless all images could be read.
        count: images to take, at most.
        method: "minmax" keeps every value seen, "moving_average" the usual image's; "percentile" cuts off the
            largest in ten thousand, "entropy" and "mse" where that loses least information, or adds least error.
        seed: of the choice of images.
        force: allow a split that accuracy is measured on.
        check_colours: refuse frames that look as if red and blue were swapped, see channel_order.py.

    Raises:
        ArtifactError: if the model cannot be read or `out` not be written.
        CalibrationError: if the images may not be used, too many of them are copies, their channels look swapped,
            the model cannot be quantised, or a value is not finite.
        DataError: if an image cannot be read.
    """
    outs = {method: out}
    return calibrate_each(model, dataset, outs, count=count, seed=seed, force=force, check_colours=check_colours)[
        method
    ]


def calibrate_each(
    model: Path,
    dataset: Dataset,
    outs: Mapping[Method, Path],
    *,
    count: int = 64,
    seed: int = 0,
    force: bool = False,
    check_colours: bool = True,
) -> dict[Method, CalibrationReport]:
    """Collect ranges by several methods in one pass over the images, and write a file for each, see `calibrate`.

    What was gathered is kept beside the first file (`<out>.state`), where a run that was killed goes on, and
    removed at the end.

    Args:
        model: float32, as `export` writes it.
        dataset: of which images are chosen.
        outs: the file to write, by method.
        count: images to take, at most.
        seed: of the choice of images.
        force: allow a split that accuracy is measured on.
        check_colours: refuse frames that look as if red and blue were swapped.
    """
    chosen = cover(dataset, choose(dataset, count, seed, force), seed)
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    collector = Collector(network, spec, place(network), tuple(outs))
    images, coverage = survey(dataset, chosen)
    if check_colours:
        refuse_swapped(network, spec, dataset, chosen)
    listed = ImageList(portable_name(dataset.name), dataset.split, seed, images)
    inputs = {"onnx": sha256_file(model), "images": listed.sha256}
    state = state_path(next(iter(outs.values())))
    run_images(dataset, chosen, collector, state, state_key(inputs["onnx"], listed.sha256, tuple(outs)))
    reports = {
        method: write_ranges(out, collector, method, RangesDetails(method, listed, coverage), inputs)
        for method, out in outs.items()
    }
    state.unlink(missing_ok=True)
    return reports


def run_images(dataset: Dataset, chosen: Sequence[int], collector: Collector, state: Path, key: str) -> None:
    """Feed a collector the chosen images, but for those that a run that was killed had fed it already.

    Args:
        dataset: that the images are of.
        chosen: their indices.
        collector: which has seen nothing yet.
        state: the file to go on from, which is written again after every `SAVE_EVERY` images.
        key: of that file, see `state_key`.
    """
    done = load_state(state, key, collector)
    for images, index in enumerate(track(chosen[done:], "calibrate"), start=done + 1):
        collector.add(fit(dataset[index].frame, collector.spec))
        if images % SAVE_EVERY == 0:
            save_state(state, key, collector, images)


def write_ranges(
    out: Path, collector: Collector, method: Method, details: RangesDetails, inputs: dict[str, str]
) -> CalibrationReport:
    """Write what a collector has found by a method, with a manifest."""
    ranges = collector.ranges(method)
    sha256 = save_ranges(out, ranges, collector.spec, inputs=inputs, details=details, library="onnxruntime")
    return CalibrationReport(
        path=out,
        sha256=sha256,
        method=method,
        images=len(details.images.images),
        images_sha256=details.images.sha256,
        tensors=len(ranges.amax),
        coverage=details.coverage,
    )


def files_by_method(out: Path, methods: Sequence[Method]) -> dict[Method, Path]:
    """Where the ranges of each of several methods go: beside `out`, the method in the name; one goes to `out`.

    >>> {method: path.name for method, path in files_by_method(Path("m.ranges"), ("mse", "minmax")).items()}
    {'mse': 'm_mse.ranges', 'minmax': 'm_minmax.ranges'}
    """
    if len(methods) == 1:
        return {methods[0]: out}
    return {method: out.with_name(f"{out.stem}_{method}{out.suffix}") for method in methods}


def portable_name(name: str) -> str:
    """A data set's name without the folders that lead to it, which differ between machines.

    >>> portable_name("camvid:/home/me/data/camvid")
    'camvid:camvid'
    """
    kind, _, path = name.partition(":")
    return f"{kind}:{Path(path).name}"
