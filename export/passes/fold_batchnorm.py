"""Batch norms in the weights of what comes before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import constant, constant_array

Array = npt.NDArray[Any]


class FoldBatchNorm:
    """Fold inference BatchNormalization into the weights of the one node that feeds it.

    Handles: Conv and ConvTranspose with any groups, Gemm without `beta`; each with or without bias.

    Leaves: a batch norm behind anything else (pre-activation networks, concatenations), one whose input has
    another use, and one with parameters that are not constants. Runtimes take these as they are.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        changed = False
        for norm in list(model.graph):
            if norm.op_type == "BatchNormalization":
                changed |= _fold(model.graph, norm)
        return model, changed


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    x = norm.inputs[0]
    linear = x.producer() if x is not None else None
    if x is None or linear is None or len(x.uses()) != 1 or x.is_graph_output():
        return False
    weight, bias = _weights(linear)
    scale, shift = _scale_and_shift(norm)
    if weight is None or bias is None or scale is None:
        return False
    moved = (bias * scale + shift).astype(weight.dtype)
    for index, array in ((1, _scaled(linear, weight, scale)), (2, moved)):
        linear.resize_inputs(max(index + 1, len(linear.inputs)))
        linear.replace_input_with(index, constant(graph, f"{linear.name}.folded", array))
    norm.outputs[0].replace_all_uses_with(x, replace_graph_outputs=True)
    if x.is_graph_output():
        x.name, norm.outputs[0].name = norm.outputs[0].name, None
    graph.remove(norm, safe=True)
    return True


def _weights(linear: ir.Node) -> tuple[Array | None, Array | None]:
    """Weight and bias of a node that can take a scale; None where it cannot."""
    if linear.op_type not in ("Conv", "ConvTranspose", "Gemm") or _attribute(linear, "beta", 1.0) != 1.0:
        return None, None
    weight = constant_array(linear.inputs[1])
    if weight is None:
        return None, None
    if len(linear.inputs) < 3 or linear.inputs[2] is None:
        return weight, np.zeros(1)
    bias = constant_array(linear.inputs[2])
    return weight, bias if bias is not None and bias.ndim == 1 else None


def _scale_and_shift(norm: ir.Node) -> tuple[Array | None, Array | None]:
    """What a batch norm multiplies each channel by and then adds; None where that is not constant."""
    gamma, beta, mean, variance = (constant_array(value) for value in norm.inputs[1:5])
    if gamma is None or beta is None or mean is None or variance is None:
        return None, None
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + _attribute(norm, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _scaled(linear: ir.Node, weight: Array, scale: Array) -> Array:
    """`weight` with each output channel multiplied by its scale."""
    if linear.op_type == "Gemm":
        per_channel = scale[:, None] if _attribute(linear, "transB", 0) else scale
    elif linear.op_type == "Conv":  # (out, in / groups, ...)
        per_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # (in, out / groups, ...), the groups one after the other along the first axis
        groups = int(_attribute(linear, "group", 1))
        per_channel = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        per_channel = per_channel.reshape(*per_channel.shape, *[1] * (weight.ndim - 2))
    scaled = np.empty_like(weight)
    return np.multiply(weight, per_channel, out=scaled, casting="same_kind")  # in float64, but a part at a time


def _attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)
