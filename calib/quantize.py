"""From a float32 ONNX model to one with its precision in the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from roadseg.runtime import CalibrationError, Dataset, UsageError, read_manifest, sha256_file
from roadseg.runtime.onnxfile import save_onnx

from .cache import Ranges, read_ranges
from .fp16 import cast_to_fp16
from .graph import Graph
from .overflow import refuse_overflow
from .provenance import stamp
from .qdq import insert_qdq
from .rest import Rest
from .source import load_float_model

Precision = Literal["fp16", "int8"]


@dataclasses.dataclass(frozen=True)
class QuantizeReport:
    """What became of a model's layers: its convolutions and matrix products."""

    path: Path
    sha256: str
    precision: Precision
    layers: int
    """How many there are."""
    typed_layers: int
    """How many of them compute in the new precision."""
    mac_share: float
    """Of the layers' multiply-accumulate operations, those in the new precision; in [0, 1]."""
    flushed_weights: int
    """Weights, other than 0, that float16 makes 0."""
    kept: dict[str, str]
    """What stays float32 in an FP16 model, and which layers stay float in an INT8 model, by node, and why."""
    float32: dict[str, str]
    """What of an INT8 model's rest is float32 where the rest is FP16, by node, and why."""
    overflow_frames: int = 0
    """Frames on which no tensor left FP16's range; 0 if nobody looked."""


def quantize(
    model: Path,
    precision: Precision,
    *,
    out: Path,
    ranges: Path | None = None,
    kept: Collection[str] = (),
    rest: Rest = "fp16",
    overflow_data: Dataset | None = None,
    overflow_count: int = 16,
) -> QuantizeReport:
    """Write the typed model: casts and float16 weights for "fp16", Q/DQ nodes and int8 weights for "int8".

    Inputs, outputs and metadata stay; precision and the hashes of the source files are added to the metadata.

    Args:
        model: float32, as `export` writes it.
        precision: of most of the new model's arithmetic.
        out: the ONNX file to write.
        ranges: what `calibrate` wrote for this very model; needed for "int8", and for that only.
        kept: layers that stay float in an INT8 model, by output tensor, as `search` finds them.
        rest: what is not INT8 in an INT8 model, where float16 can hold it.
        overflow_data: for "fp16": the float32 model runs on frames of it first, and none of what becomes float16
            may go beyond 65504 there. Without it nobody looks.
        overflow_count: frames of it, at most.

    Raises:
        ArtifactError: if a file cannot be read, is damaged, or is no model or no ranges.
        CalibrationError: if the model is typed already, has nothing to quantise or no such layer to keep, the
            ranges are of another, or a tensor overflows in float16.
        UsageError: if ranges are missing, or something is given that only models of the other precision have.
    """
    if (ranges is None) == (precision == "int8"):
        raise UsageError(
            "FP16 takes no ranges; leave them out."
            if ranges
            else "INT8 needs the ranges that `roadseg calibrate` collects; give their file."
        )
    if kept and precision != "int8":
        raise UsageError("layers are kept float in INT8 models only; leave them out.")
    if overflow_data is not None and precision != "fp16":
        raise UsageError("only an FP16 model is looked at on frames for tensors that overflow; leave them out.")
    if rest != "fp16" and precision != "int8":
        raise UsageError("only INT8 models have a rest of another precision; leave it out.")
    typed = load_float_model(model)
    frames = refuse_overflow(model, overflow_data, count=overflow_count) if overflow_data is not None else 0
    macs = Graph(typed).layer_macs()
    sources = {"onnx": sha256_file(model)}
    if ranges is None:
        change = cast_to_fp16(typed)
    else:
        change = insert_qdq(typed, ranges_of(ranges, model, sources["onnx"]), kept, rest)
        sources["ranges"] = sha256_file(ranges)
    stamp(typed, precision, sources)
    save_onnx(out, typed)
    done = change.nodes & macs.keys()
    return QuantizeReport(
        path=out,
        sha256=sha256_file(out),
        precision=precision,
        layers=len(macs),
        typed_layers=len(done),
        mac_share=sum(macs[name] for name in done) / max(sum(macs.values()), 1),
        flushed_weights=change.flushed_weights,
        kept=change.kept,
        float32=change.float32,
        overflow_frames=frames,
    )


def ranges_of(path: Path, model: Path, model_sha256: str) -> Ranges:
    """The ranges in a file, if they were collected on this very model.

    Raises:
        ArtifactError: if the file or its manifest is missing or damaged.
        CalibrationError: if they are of another model.
    """
    collected_on = read_manifest(path, "ranges").inputs.get("onnx")
    if collected_on != model_sha256:
        raise CalibrationError(
            f"{path} holds the ranges of another model (SHA-256 {str(collected_on)[:12]}) than {model} "
            f"({model_sha256[:12]}). Calibrate {model} again."
        )
    return read_ranges(path)
