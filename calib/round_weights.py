"""Weights of an INT8 model rounded so that its layers err least, not each weight by itself to the nearest.

Weights of one output are rounded one after the other, and those that are left are moved to take back what was done
to the sum by rounding, as far as the inputs of the layer on images allow: GPTQ (Frantar et al., ICLR 2023, arXiv
2210.17323), which is OBQ (Frantar and Alistarh, NeurIPS 2022, arXiv 2208.11580) in one order for all outputs, here
by falling size of the inputs. Single weights are moved again afterwards as long as that makes the error less.
Scales stay, so no engine is slower for it.

Layers follow one after the other, each on the inputs that it has behind all that were rounded before. What a layer
should give is what its float32 weights make of these inputs, and not what it gives in the float32 model: weights
that are fitted to take back the errors in front of them, too, agree less with it on other images
(docs/decisions.md).
"""

from __future__ import annotations

import dataclasses
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from roadseg.runtime import CalibrationError, Dataset, ModelSpec, sha256_file
from roadseg.runtime.onnxfile import onnx_spec, save_onnx

from .cache import INT8_MAX
from .graph import Graph, array_of, check
from .observe import Frames, observe
from .patches import by_outputs, sample_patches, uneven_reason
from .placement import place
from .provenance import provenance, stamp
from .source import UNCORRECTED, UNROUNDED, load_float_model, load_quantized

Rows = npt.NDArray[np.float64]
"""`(groups, outputs, inputs)` of a layer: weights, or multiples of a step that they are rounded to."""
Steps = npt.NDArray[np.float64]
"""`(groups, outputs)`: the scale of each output."""
Moments = npt.NDArray[np.float64]
"""`(groups, inputs, inputs)`: sums of products of inputs over patches; half the Hessian of an output's error."""

POSITIONS = 1024
"""Of a layer's map that are looked at on each frame, at most."""
DAMPING = 0.01
"""Of the inputs' mean square, added to all of them, as in GPTQ: what they do on few images is not all they do."""
MOST_INPUTS = 8192
"""That an output may add up: how they go together takes 0.5 GB, several times over, for so many."""
SWEEPS = 10
"""Over all weights, in which single ones are moved again, at most."""


@dataclasses.dataclass(frozen=True)
class LayerRounding:
    """What rounding did to one layer."""

    weights: int
    moved: int
    """Weights that are not the nearest multiple of their step now."""
    error_before: float
    """Mean square of the outputs' error with every weight rounded to the nearest, on the patches that were looked
    at, as a share of the outputs' own mean square without their bias."""
    error_after: float
    """The same with the weights as they are now; never more."""


@dataclasses.dataclass(frozen=True)
class RoundingReport:
    """Which layers were rounded anew."""

    path: Path
    sha256: str
    images: int
    """How many were seen; fewer than asked for where the data set has no more."""
    images_sha256: str
    """Of their names and pixels."""
    layers: int
    """How many INT8 layers were to be rounded."""
    rounded: dict[str, LayerRounding]
    """Those with other weights now, by layer."""
    kept: dict[str, str]
    """Why the others have not, by layer."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """The weights of an INT8 layer in its model."""

    node: NodeProto
    int8: TensorProto
    """Initialiser that can be written to."""
    scales: npt.NDArray[np.float32]
    """One for each channel along the axis of the outputs."""


def round_weights(
    model: Path,
    quantized: Path,
    dataset: Dataset,
    *,
    out: Path,
    count: int = 16,
    seed: int = 0,
    first_only: bool = False,
    force: bool = False,
) -> RoundingReport:
    """Write an INT8 model with other int8 weights, nearer to what the float32 weights make of the same inputs.

    Biases are corrected afterwards, see `correct_bias`.

    Args:
        model: the float32 model that `quantized` was made from.
        quantized: what `quantize` made of it as "int8".
        dataset: of which images are chosen, see `choose`.
        out: the ONNX file to write.
        count: images to take, at most.
        seed: of the choice of images, and of positions in them.
        first_only: leave all layers alone but those that read the frame, which takes seconds in place of minutes.
            Neighbouring pixels are alike, so that what rounding does to such a layer's weights adds up.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if a model cannot be read or `out` not be written.
        CalibrationError: if the images may not be used, or the models do not belong together.
        DataError: if an image cannot be read.
    """
    exact, rounded = load_float_model(model), load_unrounded(quantized, model)
    spec = onnx_spec(exact, model)
    frames = Frames(dataset, spec, count, seed, force)
    images = frames.listed()
    graph = Graph(exact)
    layers = tuple(place(exact).int8_outputs.values())
    if first_only:
        layers = tuple(layer for layer in layers if layer.output in graph.first_layers())
    done: dict[str, LayerRounding] = {}
    kept: dict[str, str] = {}
    for layer in layers:
        if graph.resamples(graph.producer[layer.output]):
            kept[layer.title] = "it resamples a map, and was not learned"
            continue
        stored = stored_weights(rounded, layer.output)
        if isinstance(stored, str):
            kept[layer.title] = stored
            continue
        found = round_layer(rounded, spec, stored, array_of(graph.constants[layer.weights]), frames)
        if found.moved:
            done[layer.title] = found
        else:
            kept[layer.title] = "no other rounding was found to err less"
    check(rounded)
    stamp(rounded, "int8", {UNROUNDED: sha256_file(quantized), "rounding_images": images.sha256})
    save_onnx(out, rounded)
    return RoundingReport(out, sha256_file(out), len(frames), images.sha256, len(layers), done, kept)


def load_unrounded(path: Path, model: Path) -> onnx.ModelProto:
    """Read the INT8 model that `quantize` made of `model`.

    Raises:
        ArtifactError: if it cannot be read.
        CalibrationError: if it is not INT8, of another model, or was rounded or corrected already.
    """
    rounded = load_quantized(path, model)
    sources = provenance(rounded)
    if UNCORRECTED in sources:
        raise CalibrationError(
            f"the biases of {path} are corrected already, for the weights as they are; round those of what "
            "`quantize` wrote, and correct the biases of the result."
        )
    if UNROUNDED in sources:
        raise CalibrationError(f"the weights of {path} are rounded already; take what `quantize` wrote.")
    return rounded


def stored_weights(model: onnx.ModelProto, output: str) -> Stored | str:
    """The int8 weights of the layer that makes `output`, or why they cannot be rounded anew."""
    node = next(node for node in model.graph.node if output in node.output)
    if reason := uneven_reason(node):
        return reason
    made = next((other for other in model.graph.node if node.input[1] in other.output), None)
    if made is None:
        return "it stays float"
    if sum(list(other.input).count(node.input[1]) for other in model.graph.node) > 1:
        return "it shares its weights with another layer"
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    stored = Stored(node, tensors[made.input[0]], array_of(tensors[made.input[1]]))
    inputs = prod(by_outputs(node, numpy_helper.to_array(stored.int8)).shape[2:])
    return stored if inputs <= MOST_INPUTS else f"each output adds up {inputs} inputs, more than {MOST_INPUTS}"


def round_layer(
    model: onnx.ModelProto, spec: ModelSpec, stored: Stored, exact: npt.NDArray[np.float32], frames: Frames
) -> LayerRounding:
    """Give a layer the int8 weights with which it errs least, in place; `exact` are its float32 weights."""
    moments = input_moments(model, spec, stored.node, exact.shape[2:], frames)
    weights = flat_rows(stored.node, exact)
    steps = np.broadcast_to(stored.scales.reshape(-1, weights.shape[1]), weights.shape[:2]).astype(np.float64)
    whole = numpy_helper.to_array(stored.int8).copy()
    nearest = flat_rows(stored.node, whole)
    learned = better(weights, steps, moments, nearest, round_rows(weights, steps, moments))
    view = by_outputs(stored.node, whole)
    view[...] = learned.reshape(view.shape).astype(np.int8)
    stored.int8.CopyFrom(numpy_helper.from_array(whole, stored.int8.name))
    power = max(squared_errors(weights, moments).sum(), np.finfo(float).tiny)
    before, after = (
        float(squared_errors(weights - rows * steps[..., None], moments).sum() / power)
        for rows in (nearest, learned)
    )
    return LayerRounding(whole.size, int((learned != nearest).sum()), before, after)


def input_moments(
    model: onnx.ModelProto, spec: ModelSpec, node: NodeProto, kernel: tuple[int, ...], frames: Frames
) -> Moments:
    """Of what a layer multiplies by its weights; on every frame at other positions."""
    rng = np.random.default_rng(frames.seed)
    total: Moments = np.zeros((1, 1, 1))
    for tensors in observe(model, spec, [node.input[0]], frames, node.output[0]):
        patches = sample_patches(node, kernel, tensors[node.input[0]], POSITIONS, rng)
        total = total + patches.transpose(0, 2, 1) @ patches
    return total


def flat_rows(node: NodeProto, weights: npt.NDArray[np.float32] | npt.NDArray[np.int8]) -> Rows:
    """A copy of a layer's weights, a row for each output."""
    view = by_outputs(node, weights)
    return view.reshape(*view.shape[:2], -1).astype(np.float64)


def better(weights: Rows, steps: Steps, moments: Moments, nearest: Rows, learned: Rows) -> Rows:
    """Of two roundings the one that errs less, output by output; the nearest where they are alike."""
    before, after = (squared_errors(weights - rows * steps[..., None], moments) for rows in (nearest, learned))
    return np.where((after < before)[..., None], learned, nearest)


def squared_errors(rows: Rows, moments: Moments) -> Steps:
    """What weights make of all patches, squared and added up, for each output."""
    found: Steps = np.maximum(((rows @ moments) * rows).sum(axis=-1), 0)
    return found


def round_rows(weights: Rows, steps: Steps, moments: Moments) -> Rows:
    """Multiples of the steps, `INT8_MAX` of them at most, that make of patches nearly what the weights make."""
    size = np.diagonal(moments, axis1=1, axis2=2)
    damping = DAMPING * size.mean(axis=1)
    damped = moments + np.where(damping > 0, damping, 1)[:, None, None] * np.eye(moments.shape[-1])
    return settle(weights, steps, damped, compensate(weights, steps, damped))


def compensate(weights: Rows, steps: Steps, moments: Moments) -> Rows:
    """Round input by input, and let those that are left take back what each rounding did: GPTQ, algorithm 1."""
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=1, kind="stable")
    turned = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2)
    spread = np.linalg.cholesky(np.linalg.inv(turned))  # (groups, inputs, inputs), its columns
    left = np.take_along_axis(weights, order[:, None, :], 2)
    rounded = np.empty_like(left)
    for i in range(left.shape[2]):
        rounded[..., i] = to_steps(left[..., i] / steps)
        error = (left[..., i] - rounded[..., i] * steps) / spread[:, None, i, i]
        left[..., i + 1 :] -= error[..., None] * spread[:, None, i + 1 :, i]
    result = np.empty_like(rounded)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], result.shape), rounded, axis=2)
    return result


def settle(weights: Rows, steps: Steps, moments: Moments, rounded: Rows) -> Rows:
    """Move single weights by whole steps as long as that makes an error less, sweep by sweep."""
    rounded = rounded.copy()
    slopes = (rounded * steps[..., None] - weights) @ moments
    for _ in range(SWEEPS):
        before = rounded.copy()
        for i in range(rounded.shape[2]):
            moved = to_steps(rounded[..., i] - slopes[..., i] / (steps * moments[:, None, i, i]))
            by = (moved - rounded[..., i]) * steps
            groups, outputs = np.nonzero(by)
            slopes[groups, outputs] += by[groups, outputs, None] * moments[groups, i]
            rounded[..., i] = moved
        if np.array_equal(before, rounded):
            break
    return rounded


def to_steps(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest whole numbers that an int8 weight may be."""
    return np.clip(np.rint(values), -INT8_MAX, INT8_MAX)
