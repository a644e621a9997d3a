"""ONNX files with a ModelSpec inside. The onnx library is imported only when one is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .artifacts import read_bytes, write_atomically
from .errors import ArtifactError, SpecError
from .optional import require
from .spec import ModelSpec

if TYPE_CHECKING:
    import onnx

SPEC_KEY = "roadseg.spec"
"""Metadata key of the ModelSpec, as JSON."""
PROVENANCE_KEY = "roadseg.provenance"
"""Metadata key of what the model was made from, as JSON of strings."""
PRECISION_KEY = "roadseg.precision"
"""Metadata key of the typed graph's precision: "fp32", "fp16" or "int8"."""
CUSTOM_DOMAIN = "roadseg"
"""Of operators that ONNX does not have."""
OPSETS = range(17, 24)
"""Versions of the default ONNX domain that roadseg's steps understand."""


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a model.

    Raises:
        ArtifactError: if the file is missing, cut short, not ONNX, or of an opset outside `OPSETS`.
    """
    return parse_onnx(read_bytes(path), path)


def parse_onnx(data: bytes, path: Path) -> onnx.ModelProto:
    """The model in `data`, the content of `path`; errors as `load_onnx`."""
    load = require("onnx", f"reading {path}").load_model_from_string
    try:
        model: onnx.ModelProto = load(data)
    except Exception as error:  # protobuf's DecodeError, by whichever implementation is installed
        raise ArtifactError(f"{path} is not an ONNX model, or was cut short. Export it again.") from error
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if not model.graph.node or opset is None:
        raise ArtifactError(
            f"{path} holds no ONNX graph; it was cut short or is another kind of file. Export it again."
        )
    if opset not in OPSETS:
        raise ArtifactError(
            f"{path} uses ONNX opset {opset}; roadseg works with {OPSETS.start} to {OPSETS.stop - 1}. "
            "Export it again with `roadseg export`, or convert it with onnx.version_converter."
        )
    return model


def save_onnx(path: Path, model: onnx.ModelProto) -> None:
    """Write a model atomically, with the same bytes for the same model."""
    write_atomically(path, serialise(model))


def serialise(model: onnx.ModelProto) -> bytes:
    """The content of a model's file, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """The model's metadata properties."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, entries: dict[str, str]) -> None:
    """Add or replace metadata properties, keeping them sorted by key."""
    merged = metadata(model) | entries
    del model.metadata_props[:]
    for key in sorted(merged):
        model.metadata_props.add(key=key, value=merged[key])


def onnx_spec(model: onnx.ModelProto, path: Path) -> ModelSpec:
    """The ModelSpec inside a model.

    Raises:
        ArtifactError: if there is none, or it was edited into something else.
    """
    return read_spec(metadata(model), path)


def read_spec(entries: Mapping[str, str], path: Path) -> ModelSpec:
    """The ModelSpec among the metadata properties of the model at `path`; errors as `onnx_spec`."""
    if SPEC_KEY not in entries:
        raise ArtifactError(
            f"{path} holds no ModelSpec, so nothing says how its frames were normalised. "
            "Export the network with `roadseg export`."
        )
    try:
        return ModelSpec.from_json(entries[SPEC_KEY])
    except SpecError as error:
        raise ArtifactError(
            f"{path} holds a ModelSpec that cannot be read ({str(error).rstrip('.')}). "
            "Export the network with `roadseg export`."
        ) from error
