"""What a model says it was made from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import onnx

from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, metadata, set_metadata


def provenance(model: onnx.ModelProto) -> dict[str, str]:
    """What a model was made from, by role: mostly SHA-256 of files."""
    return msgspec.json.decode(metadata(model).get(PROVENANCE_KEY, "{}"), type=dict[str, str])


def stamp(model: onnx.ModelProto, precision: str, sources: Mapping[str, str]) -> None:
    """Note in a model's metadata what it is now and what it was made from, beside what it was made from before."""
    text = msgspec.json.encode(provenance(model) | dict(sources), order="sorted").decode()
    set_metadata(model, {PRECISION_KEY: precision, PROVENANCE_KEY: text})
