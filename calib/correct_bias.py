"""Biases of an INT8 model moved so that its layers are right on average.

Rounding shifts what a layer gives on average, most of all where few weights make an output, as in depthwise
layers; and activations make a shift of errors that had none. That is much the same on all frames, so the bias can
take it back (Nagel et al., ICCV 2019, arXiv 1906.04721, section 4.2, in the form that measures it on images).

Layers are corrected one after the other, each behind all that were corrected before, so that the frames go through
a part of the model once for every layer. In a single sweep each layer would answer for the shifts of those before
it too, and they would be taken out several times: INT8 is worse for it (benchmarks/repair.py).

A few frames may be unlike the others: where ranges cut off what these reach, their means lack much that no bias
should give to the rest. So a bias takes back the median of what frames lack. Behind every layer the classes'
probabilities are compared, by a mean that no single frame decides, and a bias that takes them further from those
of the float32 model is put back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from roadseg.runtime import CalibrationError, Dataset, ModelSpec, sha256_file
from roadseg.runtime.onnxfile import onnx_spec, save_onnx

from .divergence import Divergence
from .graph import array_of, check, drop_unused
from .observe import Frames, observe
from .placement import Layer, place
from .provenance import provenance, stamp
from .source import UNCORRECTED, load_float_model, load_quantized

Means = npt.NDArray[np.float64]
"""Mean of each channel over positions, `(frames, channels)`."""
Shift = npt.NDArray[np.float64]
"""What is added to the bias of each channel."""
LEAST = 1e-9
"""Divergence in nats below which a frame counts as the same."""
BIASED = ("Conv", "ConvTranspose", "Gemm")
"""Layers whose third input is a bias."""


@dataclasses.dataclass(frozen=True)
class BiasReport:
    """Which layers were corrected."""

    path: Path
    sha256: str
    images: int
    """How many were seen; fewer than asked for where the data set has no more."""
    images_sha256: str
    """Of their names and pixels."""
    layers: int
    """How many INT8 layers there are."""
    corrected: int
    """How many of them have another bias now."""
    kept: dict[str, str]
    """Why the others have not, by layer."""
    divergence_before: float
    """Kullback-Leibler divergence of a position's class probabilities from those of the float32 model, in nats;
    geometric mean over the images."""
    divergence: float
    """The same of what was written; never more."""
    furthest: dict[str, float]
    """The image whose answers are furthest from the float32 model's, and their divergence; much more than the mean
    tells that the ranges are not made for images like this."""


def correct_bias(
    model: Path,
    quantized: Path,
    dataset: Dataset,
    *,
    out: Path,
    count: int = 16,
    seed: int = 0,
    force: bool = False,
) -> BiasReport:
    """Write an INT8 model whose layers give on the median image's average what those of the float32 model give.

    Biases stay float32. One stays as it is where another takes the answers further from the float32 model's.

    Args:
        model: the float32 model that `quantized` was made from.
        quantized: what `quantize` made of it as "int8"; or `round_weights`, of that.
        dataset: of which images are chosen, see `choose`.
        out: the ONNX file to write.
        count: images to take, at most.
        seed: of the choice of images.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if a model cannot be read or `out` not be written.
        CalibrationError: if the images may not be used, the models do not belong together, or their answers do not
            come from logits.
        DataError: if an image cannot be read.
    """
    exact, rounded = load_float_model(model), load_uncorrected(quantized, model)
    spec = onnx_spec(exact, model)
    frames = Frames(dataset, spec, count, seed, force)
    images = frames.listed()
    layers = tuple(place(exact).int8_outputs.values())
    nodes = {node.output[0]: node for node in rounded.graph.node}
    kept = {layer.title: reason for layer in layers if (reason := fixed_reason(rounded, nodes[layer.output]))}
    movable = [layer for layer in layers if layer.title not in kept]
    divergence = Divergence(exact, spec, frames)
    nearest = divergence.by_frame(divergence.open(rounded))
    before = geometric_mean(nearest)
    wanted = channel_means(exact, spec, movable, frames, "float32 means")
    for layer in movable:
        (given,) = channel_means(rounded, spec, [layer], frames, layer.output).values()
        node = nodes[layer.output]
        old = list(node.input)
        add_to_bias(rounded, node, np.median(wanted[layer.output] - given, axis=0))
        found = divergence.by_frame(divergence.open(rounded))
        if geometric_mean(found) > geometric_mean(nearest):
            node.input[:] = old
            kept[layer.title] = "the answers with another are further from those of the float32 model"
        else:
            nearest = found
    drop_unused(rounded)
    check(rounded)
    stamp(rounded, "int8", {UNCORRECTED: sha256_file(quantized), "bias_images": images.sha256})
    save_onnx(out, rounded)
    return BiasReport(
        path=out,
        sha256=sha256_file(out),
        images=len(frames),
        images_sha256=images.sha256,
        layers=len(layers),
        corrected=len(layers) - len(kept),
        kept=kept,
        divergence_before=before,
        divergence=geometric_mean(nearest),
        furthest={images.images[int(nearest.argmax())].name: float(nearest.max())},
    )


def load_uncorrected(path: Path, model: Path) -> onnx.ModelProto:
    """Read the INT8 model that `quantize` or `round_weights` made of `model`.

    Raises:
        ArtifactError: if it cannot be read.
        CalibrationError: if it is not INT8, of another model, or corrected already.
    """
    rounded = load_quantized(path, model)
    if UNCORRECTED in provenance(rounded):
        raise CalibrationError(
            f"the biases of {path} are corrected already; take what `quantize` or `round-weights` wrote."
        )
    return rounded


def channel_means(
    model: onnx.ModelProto, spec: ModelSpec, layers: Sequence[Layer], frames: Frames, what: str
) -> dict[str, Means]:
    """The mean of every channel of what layers give, frame by frame, by output tensor.

    Raises:
        CalibrationError: if one is not finite.
    """
    names = [layer.output for layer in layers]
    found: dict[str, list[Shift]] = {name: [] for name in names}
    for tensors in observe(model, spec, names, frames, what):
        for name, values in tensors.items():
            found[name].append(values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64))
    for name, means in found.items():
        if not np.isfinite(means).all():
            raise CalibrationError(
                f'the tensor "{name}" holds infinite values or NaN on a calibration image; '
                "check the network's weights."
            )
    return {name: np.array(means) for name, means in found.items()}


def geometric_mean(divergences: npt.NDArray[np.float64]) -> float:
    """A mean that a single frame does not decide."""
    return float(np.exp(np.log(np.maximum(divergences, LEAST)).mean()))


def fixed_reason(model: onnx.ModelProto, node: NodeProto) -> str:
    """Why a layer's bias cannot be moved; empty if it can."""
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    if node.op_type == "Cast" or constants.get(node.input[1]) == TensorProto.FLOAT16:
        return "it computes in float16"
    if node.op_type not in BIASED:
        return "it has no bias"
    if node.op_type == "Gemm" and any(a.name == "beta" and a.f != 1 for a in node.attribute):
        return "its bias is multiplied by a factor"
    name = bias_name(node)
    if name and name not in constants:
        return "its bias is computed"
    return ""


def add_to_bias(model: onnx.ModelProto, node: NodeProto, shift: Shift) -> None:
    """Give a layer a bias of its own that is larger by `shift`, in place."""
    old = next((array_of(tensor) for tensor in model.graph.initializer if tensor.name == bias_name(node)), 0)
    name = f"{node.output[0]}/corrected_bias"
    model.graph.initializer.append(numpy_helper.from_array((old + shift).astype(np.float32), name))
    del node.input[2:]
    node.input.append(name)


def bias_name(node: NodeProto) -> str:
    """The tensor that a layer adds; empty if there is none."""
    return node.input[2] if len(node.input) > 2 else ""
