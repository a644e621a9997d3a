"""What a file is and where it came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from roadseg.runtime import ArtifactError, UsageError, read_manifest, sha256_file
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, load_onnx, metadata, onnx_spec


def describe(path: Path) -> dict[str, Any]:
    """What a checkpoint, model, ranges file, package of kernels or plan says of itself, once it has been checked.

    Raises:
        UsageError: if files of this kind are not roadseg's.
        RoadsegError: if the file is damaged, edited or not what it claims to be.
    """
    if path.suffix not in DESCRIBERS:
        raise UsageError(f"{path} is none of {', '.join(DESCRIBERS)}.")
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist.")
    common = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return common | DESCRIBERS[path.suffix](path)


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Spec, history and size of a checkpoint."""
    from roadseg.train import load_checkpoint

    checkpoint = load_checkpoint(path)
    return {
        "kind": "checkpoint",
        "spec": checkpoint.spec,
        "provenance": checkpoint.provenance,
        "tensors": len(checkpoint.weights),
        "values": sum(tensor.numel() for tensor in checkpoint.weights.values()),
    }


def describe_onnx(path: Path) -> dict[str, Any]:
    """Spec, history, precision and operators of an ONNX model."""
    model = load_onnx(path)
    entries = metadata(model)
    return {
        "kind": "onnx",
        "spec": onnx_spec(model, path),
        "precision": entries.get(PRECISION_KEY, "unknown"),
        "provenance": json.loads(entries.get(PROVENANCE_KEY, "{}")),
        "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import},
        "nodes": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        "inputs": [value.name for value in model.graph.input],
        "outputs": [value.name for value in model.graph.output],
    }


def describe_with_manifest(kind: str) -> Callable[[Path], dict[str, Any]]:
    """A describer of files that have a manifest beside them."""

    def describe_it(path: Path) -> dict[str, Any]:
        manifest: dict[str, Any] = msgspec.to_builtins(read_manifest(path, kind))
        return {key: value for key, value in manifest.items() if key != "file_sha256"}

    return describe_it


DESCRIBERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".safetensors": describe_checkpoint,
    ".onnx": describe_onnx,
    ".ranges": describe_with_manifest("ranges"),
    ".kernels": describe_with_manifest("kernels"),
    ".plan": describe_with_manifest("plan"),
}
"""By file suffix."""
