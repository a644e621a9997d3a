"""INT8 in the graph: QuantizeLinear and DequantizeLinear where `placement` says.

Activations have one scale per tensor, weights one per output channel; all are symmetric with zero point 0, as
TensorRT demands. Weights are stored as int8, so the file is a quarter of the size. What is not quantised is
float16 or float32, see `rest`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

from .cache import INT8_MAX, Ranges
from .fp16 import Rewriter, count_flushed
from .graph import Change, Graph, array_of, check, drop_unused, set_nodes
from .placement import Layer, Placement, place
from .rest import Rest, assign_rest

ZERO_POINT = "int8_zero"
"""Initialiser that all activations share."""


def insert_qdq(model: onnx.ModelProto, ranges: Ranges, kept: Collection[str] = (), rest: Rest = "fp16") -> Change:
    """Quantise a float32 model in place.

    Args:
        model: with its weights in initialisers.
        ranges: of every tensor that is quantised.
        kept: layers that stay float, see `place`.
        rest: what is not INT8, where float16 can hold it.

    Raises:
        CalibrationError: if nothing can be quantised, a tensor has no range, or `kept` has an unknown layer.
    """
    placement, graph = place(model, kept), Graph(model)
    half, float32 = assign_rest(graph, placement, ranges) if rest == "fp16" else (frozenset[str](), {})
    flushed = count_flushed(graph, half)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), ZERO_POINT))
    for tensor in placement.activations:
        model.graph.initializer.append(numpy_helper.from_array(np.array(ranges.scale(tensor)), scale_name(tensor)))
    set_nodes(model, list(_nodes(model, placement)))
    if half:
        set_nodes(model, list(Rewriter(Graph(model), half).nodes()))
    drop_unused(model)
    check(model)
    reasons = {layer.title: layer.reason for layer in placement.layers if layer.reason}
    return Change(frozenset(placement.int8_outputs), reasons, flushed, float32)


def scale_name(tensor: str) -> str:
    """The initialiser with a tensor's scale."""
    return f"{tensor}/scale"


def quantize_weights(
    weights: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round weights to int8 with one scale per channel along `axis`, so that the largest magnitude becomes 127.

    Returns:
        int8 weights of the same shape, and float32 scales `(channels,)`; the scale of an all-zero channel is 1.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(INT8_MAX), np.float32(1)).astype(np.float32)
    rounded = np.clip(np.rint(weights / scales), -INT8_MAX, INT8_MAX).astype(np.int8)
    return rounded, scales.ravel()


def _nodes(model: onnx.ModelProto, placement: Placement) -> Iterator[NodeProto]:
    activations = set(placement.activations)
    int8_outputs = placement.int8_outputs
    yield from _weight_nodes(model, int8_outputs.values())
    for value in model.graph.input:
        if value.name in activations:
            yield from _pair(value.name)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name in activations:
                node.input[i] = f"{name}/dq"
        if layer := int8_outputs.get(node.output[0]):
            node.input[list(node.input).index(layer.weights)] = _weights_name(layer)
        yield node
        for name in node.output:
            if name in activations:
                yield from _pair(name)


def _weight_nodes(model: onnx.ModelProto, layers: Iterable[Layer]) -> Iterator[NodeProto]:
    """One DequantizeLinear for each set of weights, however many layers share it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, layer in {_weights_name(layer): layer for layer in layers}.items():
        rounded, scales = quantize_weights(array_of(constants[layer.weights]), layer.axis)
        quantized, scale = f"{name}/int8", f"{name}/scale"
        model.graph.initializer.append(numpy_helper.from_array(rounded, quantized))
        model.graph.initializer.append(numpy_helper.from_array(scales, scale))
        yield helper.make_node(
            "DequantizeLinear", [quantized, scale], [name], name=f"{name}/dequantize", axis=layer.axis
        )


def _weights_name(layer: Layer) -> str:
    return f"{layer.weights}/axis{layer.axis}"


def _pair(tensor: str) -> Iterator[NodeProto]:
    quantized, scale = f"{tensor}/q", scale_name(tensor)
    yield helper.make_node("QuantizeLinear", [tensor, scale, ZERO_POINT], [quantized], name=f"{tensor}/quantize")
    yield helper.make_node(
        "DequantizeLinear", [quantized, scale, ZERO_POINT], [f"{tensor}/dq"], name=f"{tensor}/dequantize"
    )
