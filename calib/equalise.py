"""Channels of a tensor brought nearer to a common range, so that the tensor's one INT8 scale serves them all.

What one layer makes of a channel may be divided by any factor, if all that read it are layers that multiply it
again: cross-layer equalisation (Nagel et al., ICCV 2019, arXiv 1906.04721, section 4.1). Operators in between may
be there as long as they give c f(x) for c x.

Factors come from what channels reach on calibration images and from how much their readers weigh them, as in
SmoothQuant (Xiao et al., ICML 2023, arXiv 2211.10438, equation 4), and not from weights alone as in Nagel's. Those
bring whole tensors of weights to a common range, but here every output channel of weights has a scale of its own,
and it is the activations that have to share. benchmarks/repair.py measures both.

Factors are powers of two. So no bit of any mantissa changes, and the equalised model answers exactly as before.

It is to be calibrated by min-max: the entropy method cuts channels off that all reach far (docs/decisions.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, numpy_helper

from roadseg.runtime import CalibrationError, Dataset, ModelSpec, sha256_file
from roadseg.runtime.onnxfile import load_onnx, onnx_spec, save_onnx

from .graph import Graph, array_of, attribute, check
from .observe import Frame, Frames, observe
from .provenance import provenance, stamp
from .source import load_float_model

Channels = npt.NDArray[np.float64]
"""One number for each channel."""
LAYERS = ("Conv", "ConvTranspose")
HOMOGENEOUS = (
    *("Relu", "LeakyRelu", "PRelu", "Identity", "Resize"),
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
)
"""Operators that give c f(x) for c x, channel by channel, for every positive c. Clip is none: its bounds stay."""
SHARE = 0.5
"""Of the difference between channels that weights take over, as powers; SmoothQuant's alpha, at its default."""
REACH = 6
"""Powers of two by which a channel is raised beyond the least raised one, at most. What is next to nothing on the
calibration images may be more elsewhere."""

UNEQUALISED = "unequalised_onnx"
"""Role, in the provenance of an equalised model, of the one it was made from."""


@dataclasses.dataclass(frozen=True)
class Seam:
    """Channels that one layer makes and only layers read."""

    before: NodeProto
    after: tuple[NodeProto, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """What the readers read: the channels, behind what stands between."""
        return tuple(dict.fromkeys(node.input[0] for node in self.after))


@dataclasses.dataclass(frozen=True)
class EqualiseReport:
    """What was equalised."""

    path: Path
    sha256: str
    images: int
    """How many were seen; fewer than asked for where the data set has no more."""
    images_sha256: str
    """Of their names and pixels."""
    layers: int
    """Whose output channels were looked at; what others read than layers is left alone."""
    channels: int
    """How many of theirs were multiplied by a factor other than 1."""
    largest_factor: float
    """That a channel was multiplied by."""


def equalise(
    model: Path, dataset: Dataset, *, out: Path, count: int = 64, seed: int = 0, force: bool = False
) -> EqualiseReport:
    """Write a model that gives the same answers, bit for bit, and loses less as INT8; calibrate that one.

    Args:
        model: float32, as `export` writes it.
        dataset: of which images are chosen, see `choose`.
        out: the ONNX file to write.
        count: images to take, at most.
        seed: of the choice of images.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if the model cannot be read or `out` not be written.
        CalibrationError: if the images may not be used, the model is typed or equalised already, or a value is
            not finite.
        DataError: if an image cannot be read.
    """
    network = load_float_model(model)
    if UNEQUALISED in provenance(network):
        raise CalibrationError(f"{model} is equalised already; equalise takes the model that export wrote.")
    spec = onnx_spec(network, model)
    frames = Frames(dataset, spec, count, seed, force)
    images = frames.listed()
    graph = Graph(network)
    found = seams(graph)
    maxima = channel_maxima(network, found, frames, spec)
    scaled = [factors(graph, seam, largest) for seam, largest in zip(found, maxima, strict=True)]
    for seam, by_channel in zip(found, scaled, strict=True):
        rescale(graph, seam, by_channel)
    check(network)
    stamp(network, "fp32", {UNEQUALISED: sha256_file(model), "equalisation_images": images.sha256})
    save_onnx(out, network)
    return EqualiseReport(
        path=out,
        sha256=sha256_file(out),
        images=len(frames),
        images_sha256=images.sha256,
        layers=len(found),
        channels=sum(int((by_channel != 1).sum()) for by_channel in scaled),
        largest_factor=max((float(1 / by_channel.min()) for by_channel in scaled), default=1.0),
    )


def is_equalised(model: Path) -> bool:
    """Whether `equalise` wrote a model; ArtifactError if it cannot be read."""
    return UNEQUALISED in provenance(load_onnx(model))


def seams(graph: Graph) -> tuple[Seam, ...]:
    """All of a model's, in graph order."""
    made = [node for node in graph.nodes if _is_layer(graph, node)]
    found = (Seam(node, tuple(_readers(graph, node.output[0], _width(graph, node.output[0])))) for node in made)
    return tuple(seam for seam in found if seam.after)


def channel_maxima(
    model: onnx.ModelProto, seams: Sequence[Seam], frames: Iterable[Frame], spec: ModelSpec
) -> list[Channels]:
    """The largest magnitude that each channel of each seam reaches where its readers read it, on any frame.

    Raises:
        CalibrationError: if that is not finite.
    """
    names = list(dict.fromkeys(name for seam in seams for name in seam.tensors))
    if not names:
        return []
    largest = dict.fromkeys(names, np.zeros(1))
    for tensors in observe(model, spec, names, frames, "equalise"):
        for name, values in tensors.items():
            by_channel = np.abs(values).max(axis=(0, *range(2, values.ndim)))
            largest[name] = np.maximum(largest[name], by_channel)  # NaN stays NaN
    for name in names:
        if not np.isfinite(largest[name]).all():
            raise CalibrationError(
                f'the tensor "{name}" holds infinite values or NaN on a calibration image; '
                "check the network's weights."
            )
    return [np.max([largest[name] for name in seam.tensors], axis=0) for seam in seams]


def factors(graph: Graph, seam: Seam, largest: Channels) -> Channels:
    """What each channel is divided by: powers of two that leave the largest magnitude of all no larger.

    Channels that are 0 throughout, or that no reader weighs, have the factor 1.
    """
    weight = np.max([importance(graph, reader) for reader in seam.after], axis=0)
    alive = (largest > 0) & (weight > 0)
    result = np.ones(len(largest))
    if alive.any():
        share = SHARE if any(_mixes(graph, reader) for reader in seam.after) else 0.0
        wanted = np.rint((1 - share) * np.log2(largest[alive]) - share * np.log2(weight[alive]))
        wanted = np.maximum(wanted, wanted.max() - REACH)
        grown = (np.log2(largest[alive]) - wanted).max() - np.log2(largest[alive].max())
        result[alive] = 2.0 ** (wanted + np.ceil(grown))
    return result


def importance(graph: Graph, reader: NodeProto) -> Channels:
    """How large a reader's weights of each input channel are, beside the largest of the same output; 0 to 1.

    An output's weights share an INT8 scale, so only their ratio counts.
    """
    weights = np.abs(by_groups(reader, array_of(graph.constants[reader.input[1]])))
    rows = weights.max(axis=(2, 3), keepdims=True)
    ratios: Channels = (weights / np.where(rows > 0, rows, 1)).max(axis=(1, 3)).ravel()
    return ratios


def rescale(graph: Graph, seam: Seam, by_channel: Channels) -> None:
    """Divide what is made of each channel by its factor, and multiply its readers' weights by that; in place."""
    before = seam.before
    _multiply(graph, before, 1 / by_channel.reshape(attribute(before, "group", 1), -1, 1, 1))
    for name in filter(None, before.input[2:]):
        _replace(graph, name, array_of(graph.constants[name]) / by_channel)
    for reader in seam.after:
        _multiply(graph, reader, by_channel.reshape(attribute(reader, "group", 1), 1, -1, 1))


def by_groups(node: NodeProto, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A view of a layer's weights as `(groups, outputs / groups, inputs / groups, positions)`."""
    parts = weights.reshape(attribute(node, "group", 1), -1, weights.shape[1], prod(weights.shape[2:]))
    # A Conv has (outputs, inputs / groups, ...), a ConvTranspose without groups (inputs, outputs, ...).
    return parts if node.op_type == "Conv" else parts.swapaxes(1, 2)


def _multiply(graph: Graph, node: NodeProto, by: npt.NDArray[np.float64]) -> None:
    weights = array_of(graph.constants[node.input[1]]).copy()
    view = by_groups(node, weights)
    view *= by
    _replace(graph, node.input[1], weights)


def _replace(graph: Graph, constant: str, values: npt.NDArray[np.floating[Any]]) -> None:
    graph.constants[constant].CopyFrom(numpy_helper.from_array(values.astype(np.float32), constant))


def _mixes(graph: Graph, reader: NodeProto) -> bool:
    """Whether an output of a layer reads several channels, so that the channels' weights share a scale."""
    inputs: int = by_groups(reader, array_of(graph.constants[reader.input[1]])).shape[2]
    return inputs > 1


def _readers(graph: Graph, tensor: str, width: int) -> list[NodeProto]:
    """The layers that read a tensor's channels, straight or through homogeneous operators.

    None if anything else reads them too, or they are not `width` channels all the way.
    """
    if tensor in graph.outputs or not width or _width(graph, tensor) != width:
        return []
    found = [_behind(graph, node, tensor, width) for node in graph.consumers[tensor]]
    return [layer for layers in found for layer in layers] if all(found) else []


def _behind(graph: Graph, node: NodeProto, tensor: str, width: int) -> list[NodeProto]:
    """The layers that read a tensor through `node`; none if it lets through anything else than multiples."""
    if list(node.input).index(tensor) != 0 or tensor in node.input[1:]:
        return []
    if _is_layer(graph, node):
        return [node]
    return _readers(graph, node.output[0], width) if _is_homogeneous(node) else []


def _is_homogeneous(node: NodeProto) -> bool:
    if any(a.s == b"tf_crop_and_resize" for a in node.attribute):
        return False  # it fills in a constant beyond the border
    return node.op_type in HOMOGENEOUS


def _is_layer(graph: Graph, node: NodeProto) -> bool:
    """Whether a node's weights, and its bias if it has one, are constants that nobody else reads.

    Groups of a ConvTranspose share the scales of their weights (`placement`), which is left alone.
    """
    own = [name for name in node.input[1:] if name]
    return (
        node.op_type in LAYERS
        and graph.has_weights(node)
        and all(name in graph.constants and len(graph.consumers[name]) == 1 for name in own)
        and (node.op_type == "Conv" or attribute(node, "group", 1) == 1)
    )


def _width(graph: Graph, tensor: str) -> int:
    """How many channels a tensor has; 0 where that is not known."""
    shape = graph.shape(tensor)
    return (shape[1] or 0) if len(shape) > 1 else 0
