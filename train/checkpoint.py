"""Checkpoints: weights with the contract for their pixels and where they came from, in one safetensors file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from roadseg.runtime import (
    ArtifactError,
    Backend,
    CheckpointError,
    ModelSpec,
    Size,
    UsageError,
    write_atomically,
)

from .models import build

METADATA_KEY = "roadseg"
"""Of the safetensors header: JSON of the ModelSpec and the provenance."""

SHIPPED = {"camvid": "fastscnn_camvid.safetensors", "scenes": "fastscnn_scenes.safetensors"}
"""Checkpoints in train/weights/, by the name `--weights` takes."""


SCALAR: Any = np.float64().__reduce__()[0]
NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 saves it
    (SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
]
"""What a best score that was saved beside the weights is made of; reading it runs nothing."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights, their contract, and their history."""

    spec: ModelSpec
    weights: dict[str, Tensor]
    provenance: dict[str, str]
    """Where the weights came from, e.g. "data", "epochs", "miou"; values are text."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; the same checkpoint gives the same bytes."""
    # One entry only: safetensors writes several in an order that changes from process to process.
    metadata = {METADATA_KEY: json.dumps([checkpoint.spec.to_json(), checkpoint.provenance], sort_keys=True)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(checkpoint.weights.items())}
    write_atomically(path, safetensors.torch.save(weights, metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: if the file is damaged or was not written by roadseg.
        ArtifactError: if it cannot be read.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or was cut short ({error}).") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} holds weights but no ModelSpec, so nothing says how frames were normalised. "
            "Give the spec with --spec."
        )
    spec, provenance = json.loads(metadata[METADATA_KEY])
    return Checkpoint(ModelSpec.from_json(spec), weights, provenance)


def find_checkpoint(name: str) -> Path:
    """The path of a checkpoint: a file, or the name of one that ships with roadseg.

    Raises:
        UsageError: if it is neither.
    """
    if name in SHIPPED:
        return Path(str(resources.files("roadseg.train.weights") / SHIPPED[name]))
    if not Path(name).is_file():
        raise UsageError(f"there is no checkpoint {name}; give a file, or one of {', '.join(SHIPPED)}.")
    return Path(name)


def load_network(path: Path) -> tuple[nn.Module, Checkpoint]:
    """The network of a checkpoint with its weights, in evaluation mode."""
    checkpoint = load_checkpoint(path)
    net = build(checkpoint.spec.name, len(checkpoint.spec.classes))
    load_weights(net, checkpoint.weights, path)
    return net.eval(), checkpoint


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pth` file without running anything inside it.

    Raises:
        CheckpointError: if the file is damaged or holds anything but tensors by name.
        ArtifactError: if there is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever zipfile, pickle and torch do
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(error).__name__}): it was cut short, or holds more than "
            "tensors. Save it as torch.save(net.state_dict(), path) or as safetensors."
        ) from error
    return _unwrap(content, path)


def load_weights(net: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a network, every key matched both ways.

    Raises:
        CheckpointError: naming the keys that are missing, unexpected or of another shape.
    """
    own = net.state_dict()
    problems = [f"missing {_few(own.keys() - weights.keys())}"] if own.keys() - weights.keys() else []
    if weights.keys() - own.keys():
        problems.append(f"unexpected {_few(weights.keys() - own.keys())}")
    misshapen = [
        f"{k} {tuple(weights[k].shape)} in place of {tuple(own[k].shape)}"
        for k in sorted(own.keys() & weights.keys())
        if own[k].shape != weights[k].shape
    ]
    if misshapen:
        problems.append(f"of another shape {_few(misshapen)}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit {type(net).__name__}, whose keys are {len(own)}: {'; '.join(problems)}. "
            "Is it a checkpoint of this network with this number of classes?"
        )
    net.load_state_dict(dict(weights))


def open_backend(path: Path, size: Size | None) -> tuple[ModelSpec, Backend]:
    """Open a checkpoint for `Segmenter.open`, at its own size or at `size`."""
    from roadseg.runtime.backends.torch import TorchBackend

    net, checkpoint = load_network(path)
    spec = checkpoint.spec.resized(size) if size else checkpoint.spec
    return spec, TorchBackend(net, spec)


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """Take off the envelopes and the DataParallel prefix that training scripts put around a state dict."""
    for envelope in ("state_dict", "model", "net", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(envelope), dict):
            content = content[envelope]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise CheckpointError(f"{path} holds no state dict (names with tensors). Save net.state_dict().")
    return {re.sub(r"^(module\.)+", "", str(name)): tensor for name, tensor in content.items()}


def _few(names: object, most: int = 3) -> str:
    listed = sorted(names)  # type: ignore[call-overload]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
