"""A layer with weights as plain products: rows of its inputs by rows of its weights, group by group."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from .equalise import by_groups
from .graph import attribute

Patches = npt.NDArray[np.float64]
"""`(groups, positions, inputs)`: what each output of a group adds up, at some positions of its map."""


def uneven_reason(node: NodeProto) -> str:
    """Why a layer is not taken apart here; empty if it is."""
    if any(a.name == "auto_pad" and a.s not in (b"", b"NOTSET") for a in node.attribute):
        return "it pads by a rule"
    if any(a.name == "output_shape" for a in node.attribute):
        return "it pads to a shape"
    if attribute(node, "transA", 0):
        return "its input is transposed"
    return ""


def by_outputs(node: NodeProto, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of a layer's weights as `(groups, outputs / groups, inputs / groups, positions)`."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return by_groups(node, weights)
    inputs_last = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return (weights if inputs_last else weights.T)[None, :, :, None]


def sample_patches(
    node: NodeProto, kernel: tuple[int, ...], values: npt.NDArray[np.float32], most: int, rng: np.random.Generator
) -> Patches:
    """What a layer multiplies by its weights for outputs at `most` different positions, at most.

    Args:
        node: the layer.
        kernel: sizes of its weights along the axes of the map; empty for a matrix product.
        values: its input: `(1, C, ...)` of a convolution, `(..., inputs)` of a matrix product. Of a batch, which
            holds copies, a convolution's first frame counts.
        most: positions to take.
        rng: that chooses them.
    """
    if not kernel:
        rows = values.reshape(-1, values.shape[-1])
        chosen: Patches = rows[_some(len(rows), most, rng)][None].astype(np.float64)
        return chosen
    sizes = values.shape[2:]
    outputs = output_sizes(node, kernel, sizes)
    places = np.unravel_index(_some(prod(outputs), most, rng), outputs)
    flat, inside = np.zeros((len(places[0]), 1), np.int64), np.ones((len(places[0]), 1), bool)
    for axis, (size, place) in enumerate(zip(sizes, places, strict=True)):
        read, whole = taps(node, kernel, axis, place)
        valid = whole & (read >= 0) & (read < size)
        flat = (flat[:, :, None] * size + np.where(valid, read, 0)[:, None]).reshape(len(flat), -1)
        inside = (inside[:, :, None] & valid[:, None]).reshape(len(inside), -1)
    channels = np.where(inside, values[0].reshape(values.shape[1], -1)[:, flat], 0)  # (C, positions, kernel)
    groups = attribute(node, "group", 1)
    parts = channels.reshape(groups, -1, *inside.shape).transpose(0, 2, 1, 3)
    taken: Patches = parts.reshape(groups, len(flat), -1).astype(np.float64)
    return taken


def output_sizes(node: NodeProto, kernel: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Of the map that a convolution makes of one of these sizes (ONNX operators Conv and ConvTranspose)."""
    rank = len(sizes)
    strides, dilations = integers(node, "strides", rank, 1), integers(node, "dilations", rank, 1)
    pads, extra = integers(node, "pads", 2 * rank, 0), integers(node, "output_padding", rank, 0)
    reach = [dilation * (taps - 1) + 1 for dilation, taps in zip(dilations, kernel, strict=True)]
    padding = [pads[axis] + pads[rank + axis] for axis in range(rank)]
    if node.op_type == "ConvTranspose":
        return tuple(strides[a] * (sizes[a] - 1) + extra[a] + reach[a] - padding[a] for a in range(rank))
    return tuple((sizes[a] + padding[a] - reach[a]) // strides[a] + 1 for a in range(rank))


def taps(
    node: NodeProto, kernel: tuple[int, ...], axis: int, place: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Where along one axis the input stands that each tap of a kernel reads for outputs at `place`.

    Returns:
        `(outputs, taps)` coordinates, outside of the map too, and whether there is one: between the inputs of a
        transposed convolution with a stride there is none.
    """
    rank = len(kernel)
    stride, dilation = integers(node, "strides", rank, 1)[axis], integers(node, "dilations", rank, 1)[axis]
    pad = integers(node, "pads", 2 * rank, 0)[axis]
    reach = dilation * np.arange(kernel[axis])
    if node.op_type == "ConvTranspose":
        spread = place[:, None] + pad - reach
        return spread // stride, spread % stride == 0
    read = place[:, None] * stride - pad + reach
    return read, np.ones_like(read, bool)


def integers(node: NodeProto, name: str, count: int, default: int) -> tuple[int, ...]:
    """An attribute of integers, `count` times the default where it is not given."""
    return next((tuple(a.ints) for a in node.attribute if a.name == name), (default,) * count)


def _some(count: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
