"""From a network's name and a weights file to a checked ONNX model: what `roadseg export` does."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from roadseg.runtime import ModelSpec, Segmenter, Size, UsageError, sha256_file
from roadseg.runtime.settings import read_settings

if TYPE_CHECKING:
    from torch import nn

    from roadseg.export import ExportReport

CHECKED_FRAMES = 4
"""Frames of a data set on which the model is compared with PyTorch."""


def export_network(
    net: str,
    weights: str,
    out: Path,
    *,
    size: Size | None = None,
    spec_file: Path | None = None,
    io: Literal["frame", "tensor"] = "frame",
    batch: int | None = 1,
    fuse_tail: bool = False,
    data: str | None = None,
    split: str = "val",
) -> ExportReport:
    """Export a network of the zoo, or anybody's.

    Args:
        net: key of `roadseg.train.MODELS`, or "package.module:factory".
        weights: a file, or the name of a checkpoint that ships with roadseg.
        out: the ONNX file.
        size: in place of the checkpoint's own.
        spec_file: TOML with the fields of ModelSpec, for weights that carry none.
        io: see ModelSpec.
        batch: frames per call; None leaves it open.
        fuse_tail: whether upsampling and argmax become one operator.
        data: "kind:path" of frames to compare with PyTorch on; synthetic frames without it.
        split: of that data.

    Raises:
        UsageError: if the weights carry no spec and none is given.
        CheckpointError: if the weights do not fit the network.
        ExportError: if the model is not the network.
    """
    from roadseg import export

    module, spec, provenance = load(net, weights, size, spec_file)
    frames = None
    if data:
        frames = frames_at(data, split, spec)
    return export.export(
        module,
        dataclasses.replace(spec, io=io),
        out,
        batch=batch,
        fuse_tail=fuse_tail,
        frames=frames,
        provenance=provenance,
    )


def load(
    net: str, weights: str, size: Size | None, spec_file: Path | None
) -> tuple[nn.Module, ModelSpec, dict[str, str]]:
    """A network with its weights, its contract, and where the weights came from."""
    from roadseg import train

    path = train.find_checkpoint(weights)
    if spec_file:
        spec = read_spec(spec_file, net, size)
        tensors, history = train.read_weights(path), {}
    elif path.suffix == ".safetensors":
        checkpoint = train.load_checkpoint(path)
        spec, tensors, history = checkpoint.spec, checkpoint.weights, checkpoint.provenance
    else:
        raise UsageError(
            f"{path} does not say how frames were normalised or what its classes are. Write a ModelSpec as TOML "
            "(mean, std, channels, classes) and give it with --spec."
        )
    module = train.build(net, len(spec.classes))
    train.load_weights(module, tensors, path)
    spec = spec.resized(size) if size else spec
    return module.eval(), spec, {"checkpoint_sha256": sha256_file(path), **history}


def open_network(net: str, weights: str, size: Size | None, spec_file: Path | None) -> Segmenter:
    """The network in PyTorch, ready to answer frames: what an exported model is measured against."""
    from roadseg.runtime.backends.torch import TorchBackend

    module, spec, _ = load(net, weights, size, spec_file)
    return Segmenter(spec, TorchBackend(module, spec))


def read_spec(path: Path, net: str, size: Size | None) -> ModelSpec:
    """A ModelSpec from TOML; `name`, `height` and `width` may be left out where `net` and `size` say them.

    Raises:
        UsageError: if the file is missing, not TOML, or not a ModelSpec.
    """
    known = {"name": net, **({"height": size[0], "width": size[1]} if size else {})}
    return read_settings(path, ModelSpec, known)


def frames_at(data: str, split: str, spec: ModelSpec) -> list[Any]:
    """The first few frames of a data set, brought to the size of the model."""
    from roadseg.runtime.pixels import fit
    from roadseg.train import open_data

    return [fit(sample.frame, spec) for sample in islice(open_data(data, split), CHECKED_FRAMES)]
