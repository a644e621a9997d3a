"""Ranges from a calibration cache that another program wrote: trtexec, TensorRT's calibrators, NVIDIA ModelOpt.

A cache names tensors and nothing else: not the model, its weights, or the frames. So it is believed only after
frames have run through the model, see check_ranges.py. Tensors are those of the ONNX file by name; what else it
has, such as TensorRT's "(Unnamed Layer* 3) [Convolution]_output", is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from roadseg.runtime import CalibrationError, Dataset, sha256_file
from roadseg.runtime.onnxfile import onnx_spec

from .cache import Calibrator, Ranges, read_ranges, save_ranges
from .channel_order import refuse_swapped
from .check_ranges import OTHERS_BITS, RangesCheck, collect, compare_ranges
from .choose import ImageList
from .methods import Method
from .observe import Frames
from .placement import Placement, place
from .source import load_float_model

NAMED = 10
"""Tensors that an error names, at most."""


@dataclasses.dataclass(frozen=True)
class ImportDetails:
    """What the manifest of imported ranges tells beside hashes and spec."""

    method: str
    """"imported": how they were found is not known."""
    calibrator: Calibrator
    """That the cache names."""
    nearest: Method
    """The method that finds the nearest ranges on `checked_on`."""
    checked_on: ImageList
    """Images that the ranges were compared on; the ones that they were collected on are not known."""
    bits: float
    """How far they were off there: root mean square of log2(range / range that `nearest` finds)."""
    widened: tuple[str, ...]
    """Tensors that took over a larger range, because they are concatenated with the one that has it."""
    ignored: int
    """Entries of the cache that name nothing that is quantised."""


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """Imported ranges as they were written."""

    path: Path
    sha256: str
    cache_sha256: str
    """Of the cache that they were taken from."""
    tensors: int
    """How many have a range."""
    images: int
    """How many frames it was checked on."""
    nearest: Method
    """This and what follows as in `ImportDetails`."""
    bits: float
    widened: tuple[str, ...]
    ignored: int


def import_ranges(
    model: Path,
    cache: Path,
    dataset: Dataset,
    *,
    out: Path,
    count: int = 64,
    seed: int = 0,
    force: bool = False,
) -> ImportReport:
    """Make a foreign calibration cache the ranges of a model, once frames have shown that it is of this model.

    Args:
        model: float32, as `export` writes it.
        cache: text that TensorRT or ModelOpt wrote.
        dataset: frames like those that the cache was collected on.
        out: the file to write.
        count: frames to check on, at most. Fewer tell less well whether a cache is of other weights.
        seed: of their choice.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if a file cannot be read or written, or is no model or no cache.
        CalibrationError: if the cache lacks tensors, a range is off, or all of them are those of other weights; or
            the frames may not be used.
        DataError: if an image cannot be read.
    """
    foreign = read_ranges(cache)
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    placement = place(network)
    refuse_missing(foreign, placement.activations, cache, model)
    ranges = share_ranges(foreign, placement)
    frames = Frames(dataset, spec, count, seed, force)
    refuse_swapped(network, spec, dataset, frames.indices)
    check = compare_ranges(foreign, collect(network, spec, placement, frames), None)
    check.raise_for_misfits(str(cache), dataset.name)
    refuse_other_weights(check, cache, model, dataset)
    details = ImportDetails(
        method="imported",
        calibrator=foreign.calibrator,
        nearest=check.method,
        checked_on=frames.listed(),
        bits=round(check.bits, 4),
        widened=tuple(name for name in placement.activations if ranges.amax[name] > foreign.amax[name]),
        ignored=len(foreign.amax.keys() - set(placement.activations)),
    )
    inputs = {"onnx": sha256_file(model), "cache": sha256_file(cache), "images": details.checked_on.sha256}
    sha256 = save_ranges(out, ranges, spec, inputs=inputs, details=details, library="onnxruntime")
    return ImportReport(
        path=out,
        sha256=sha256,
        cache_sha256=inputs["cache"],
        tensors=len(ranges.amax),
        images=check.images,
        nearest=check.method,
        bits=details.bits,
        widened=details.widened,
        ignored=details.ignored,
    )


def refuse_missing(ranges: Ranges, tensors: Collection[str], cache: Path, model: Path) -> None:
    """Raise CalibrationError if a cache lacks tensors that are quantised."""
    missing = [name for name in tensors if name not in ranges.amax]
    if missing:
        named = ", ".join(f'"{name}"' for name in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise CalibrationError(
            f"{cache} lacks {len(missing)} of the {len(tensors)} tensors that {model} quantises: {named}{more}. "
            "It is of another export or network, or TensorRT fused them away; calibrate the model itself."
        )


def share_ranges(ranges: Ranges, placement: Placement) -> Ranges:
    """The ranges of what is quantised, in graph order; tensors that share a scale have the largest of theirs."""
    amax = {name: ranges.amax[name] for name in placement.activations}
    for group in placement.groups:
        amax |= dict.fromkeys(sorted(group), max(amax[name] for name in group))
    return Ranges(amax, ranges.calibrator)


def refuse_other_weights(check: RangesCheck, cache: Path, model: Path, dataset: Dataset) -> None:
    """Raise CalibrationError if ranges are off together, see `OTHERS_BITS`."""
    if check.bits <= OTHERS_BITS:
        return
    furthest = max(check.fits, key=lambda fit: abs(fit.bits))
    raise CalibrationError(
        f"{cache} is stale: its tensors have the names of {model}, but not the ranges. On {check.images} frames "
        f"of {dataset.name} they are off by a factor of {2**check.bits:.2f} together, {2**OTHERS_BITS:.2f} "
        f"is allowed; {furthest}. The network was retrained since, or the frames are of another kind than the "
        "cache's. Calibrate the model anew."
    )
