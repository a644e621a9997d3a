"""Batch norms in the weights beside them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import constant, constant_array

Array = npt.NDArray[Any]


class FoldBatchNorm:
    """Fold inference BatchNormalization into the weights beside it; exact but for rounding.

    Handles:

    - one behind a Conv or ConvTranspose with any groups, or a Gemm without `beta`; each with or without bias.
    - one behind a Concat of channels or a sum of maps, if all that enters comes from such nodes: each takes its
      share (ESPNet, PIDNet).
    - one in front of a Conv without padding, whose inputs take it (BiSeNetV2).

    Leaves: one whose input has another use, as in dense blocks, where many norms read the same map; one with
    parameters that are not constants; and one between ReLUs and convolutions (DenseASPP, GFF-Net, SAC, SwiftNet,
    DDRNet, PIDNet, ESPNet). Runtimes take these as they are, and nothing exact is cheaper: TensorRT's parser makes
    one Scale layer of a BatchNormalization, but two layers and two constants of Mul and Add. The scale could pass
    a ReLU into the convolution behind it, but it gives the channels of an INT8 tensor their common range.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        changed = False
        for norm in list(model.graph):
            if norm.op_type == "BatchNormalization":
                changed |= _fold_back(model.graph, norm) or _fold_ahead(model.graph, norm)
        return model, changed


@dataclasses.dataclass(frozen=True)
class _Source:
    """A node that alone gives some channels of a map, or one summand of them."""

    linear: ir.Node
    channels: slice
    takes_shift: bool
    """What is added to a sum is added to one summand."""


def _fold_back(graph: ir.Graph, norm: ir.Node) -> bool:
    x, affine = norm.inputs[0], _scale_and_shift(norm)
    sources = _sources(x)
    if x is None or affine is None or not sources:
        return False
    for source in sources:
        scale, shift = (values[source.channels] for values in affine)
        weights = _weights(source.linear)
        assert weights is not None
        weight, bias = weights
        moved = bias * scale + (shift if source.takes_shift else 0)
        _set_weights(graph, source.linear, _scaled(weight, _by_output(source.linear, weight, scale)), moved)
    _remove(graph, norm, x)
    return True


def _sources(x: ir.Value | None, first: int = 0, takes_shift: bool = True) -> list[_Source]:
    """What `x` is made of, its channels counted from `first`; nothing if that cannot take a norm in full."""
    node, width = (x.producer(), _channels(x)) if x is not None else (None, 0)
    if x is None or node is None or len(x.uses()) != 1 or x.is_graph_output():
        return []
    if node.op_type == "Concat":
        return _parts(node, first, takes_shift)
    if node.op_type == "Add":
        return _summands(node, first, takes_shift)
    return [_Source(node, slice(first, first + width), takes_shift)] if width and _weights(node) else []


def _parts(concat: ir.Node, first: int, takes_shift: bool) -> list[_Source]:
    found: list[_Source] = []
    for x in concat.inputs:
        sources = _sources(x, first, takes_shift)
        if not sources or concat.attributes["axis"].as_int() != 1:
            return []
        found += sources
        first += _channels(x)
    return found


def _summands(add: ir.Node, first: int, takes_shift: bool) -> list[_Source]:
    one, other = add.inputs
    if one is None or other is None or one.shape != other.shape:
        return []
    left, right = _sources(one, first, takes_shift), _sources(other, first, takes_shift=False)
    return [*left, *right] if left and right else []


def _fold_ahead(graph: ir.Graph, norm: ir.Node) -> bool:
    x, y, affine = norm.inputs[0], norm.outputs[0], _scale_and_shift(norm)
    conv = next(iter(y.consumers()), None)
    if x is None or affine is None or len(y.uses()) != 1 or y.is_graph_output() or not _is_unpadded(conv):
        return False
    assert conv is not None
    weights = _weights(conv)
    if weights is None or conv.inputs[0] is not y:
        return False
    weight, bias = weights
    scale, shift = (_by_input(conv, weight, values) for values in affine)
    _set_weights(graph, conv, _scaled(weight, scale), bias + (weight * shift).reshape(len(weight), -1).sum(axis=1))
    _remove(graph, norm, x)
    return True


def _is_unpadded(conv: ir.Node | None) -> bool:
    """Whether a node is a convolution whose every product is with a value of its input."""
    if conv is None or conv.op_type != "Conv":
        return False
    pads, auto = conv.attributes.get("pads"), conv.attributes.get("auto_pad")
    return not (pads and any(pads.as_ints())) and (auto is None or auto.as_string() in ("NOTSET", "VALID"))


def _remove(graph: ir.Graph, norm: ir.Node, x: ir.Value) -> None:
    """Let `x` take the place of what `norm` makes of it."""
    norm.outputs[0].replace_all_uses_with(x, replace_graph_outputs=True)
    if x.is_graph_output():
        x.name, norm.outputs[0].name = norm.outputs[0].name, None
    graph.remove(norm, safe=True)


def _weights(linear: ir.Node) -> tuple[Array, Array] | None:
    """Weight and bias of a node that can take a scale; None where it cannot."""
    if linear.op_type not in ("Conv", "ConvTranspose", "Gemm") or _attribute(linear, "beta", 1.0) != 1.0:
        return None
    weight = constant_array(linear.inputs[1])
    if weight is None:
        return None
    if len(linear.inputs) < 3 or linear.inputs[2] is None:
        return weight, np.zeros(1)
    bias = constant_array(linear.inputs[2])
    return (weight, bias) if bias is not None and bias.ndim == 1 else None


def _set_weights(graph: ir.Graph, linear: ir.Node, weight: Array, bias: Array) -> None:
    for index, array in ((1, weight), (2, bias.astype(weight.dtype))):
        linear.resize_inputs(max(index + 1, len(linear.inputs)))
        linear.replace_input_with(index, constant(graph, f"{linear.name}.folded", array))


def _scale_and_shift(norm: ir.Node) -> tuple[Array, Array] | None:
    """What a batch norm multiplies each channel by and then adds; None where that is not constant."""
    gamma, beta, mean, variance = (constant_array(value) for value in norm.inputs[1:5])
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + _attribute(norm, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _by_output(linear: ir.Node, weight: Array, scale: Array) -> Array:
    """`scale` of each output channel, in a shape that broadcasts to `weight`."""
    if linear.op_type == "Gemm":
        return scale[:, None] if _attribute(linear, "transB", 0) else scale
    if linear.op_type == "Conv":  # (out, in / groups, ...)
        return scale.reshape(-1, *[1] * (weight.ndim - 1))
    # (in, out / groups, ...), the groups one after the other along the first axis
    groups = int(_attribute(linear, "group", 1))
    per_channel = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return per_channel.reshape(*per_channel.shape, *[1] * (weight.ndim - 2))


def _by_input(conv: ir.Node, weight: Array, values: Array) -> Array:
    """`values` of each input channel, in a shape that broadcasts to the `weight` of a Conv."""
    groups = int(_attribute(conv, "group", 1))  # one after the other along the outputs
    per_channel = np.repeat(values.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return per_channel.reshape(*per_channel.shape, *[1] * (weight.ndim - 2))


def _scaled(weight: Array, factors: Array) -> Array:
    scaled = np.empty_like(weight)
    return np.multiply(weight, factors, out=scaled, casting="same_kind")  # in float64, but a part at a time


def _channels(x: ir.Value | None) -> int:
    """Length of the second axis; 0 where that is not a fixed number."""
    width = x.shape[1] if x is not None and x.shape is not None and len(x.shape) > 1 else 0
    return width if isinstance(width, int) else 0


def _attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)
