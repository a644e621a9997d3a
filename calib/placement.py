"""Where quantisation goes: which layers run in INT8, and which tensors need a scale for that.

Calibration collects the ranges of exactly these tensors, and Q/DQ insertion quantises exactly these, so the two
cannot disagree. The rules follow what TensorRT fuses (developer guide, "Working with Quantized Types", placement):

- The data input of every convolution, transposed convolution and matrix product with constant weights is
  quantised: the output of whatever stands before it, behind batch norm and activation, never between them.
- Of the two inputs of a residual sum, the one that comes straight from an INT8 convolution stays float, so that
  convolution, sum and activation become one kernel; the other is quantised.
- Inputs and output of a concatenation in front of an INT8 layer share one scale, so that concatenating is copying.
- A tensor is quantised once; everything that reads it reads the same 8 bits.
- Biases stay float; TensorRT adds them to the 32-bit sum.
- A constant matrix that pools or interpolates a map along its rows or columns is a layer like others, but takes no
  residual sum in.

The first convolution and the last are quantised like the others: frames have 8 bits to begin with, and on CamVid a
Fast-SCNN lost no more mIoU with its classifier in INT8 than without. What stays float is in `float_reason`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable
from dataclasses import replace

import onnx
from onnx import NodeProto

from roadseg.runtime import CalibrationError

from .graph import WEIGHTED, Graph, attribute, title

ASKED = "it was asked to stay float"
TRANSPARENT = ("BatchNormalization", "Identity")
"""Operators that TensorRT folds into the convolution before them."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A node that multiplies by weights."""

    title: str
    output: str
    """Name of its output tensor, which identifies it."""
    data: str
    """Name of the tensor that its weights are multiplied with."""
    weights: str
    """Name of its weights."""
    axis: int
    """Of the output channels in its weights: there is one scale per channel."""
    reason: str = ""
    """Why it stays float; empty if it runs in INT8."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """What is quantised in a model."""

    layers: tuple[Layer, ...]
    """In graph order."""
    activations: tuple[str, ...]
    """Tensors that get a Q/DQ pair, in graph order."""
    groups: tuple[frozenset[str], ...]
    """Disjoint sets of activations with a common scale."""

    @property
    def int8_outputs(self) -> dict[str, Layer]:
        """Layers that run in INT8, by output tensor."""
        return {layer.output: layer for layer in self.layers if not layer.reason}


def place(model: onnx.ModelProto, kept: Collection[str] = ()) -> Placement:
    """Decide what is quantised.

    Args:
        model: float32.
        kept: layers that stay float though they could run in INT8, by output tensor. What is quantised for the
            others is among what is quantised without any of these.

    Raises:
        CalibrationError: if nothing can be, or a layer in `kept` is none that could.
    """
    graph = Graph(model)
    layers = tuple(_layer(graph, node) for node in graph.nodes if node.op_type in WEIGHTED)
    possible = {layer.output for layer in layers if not layer.reason}
    _refuse_unknown(kept, possible)
    layers = tuple(replace(layer, reason=ASKED) if layer.output in kept else layer for layer in layers)
    int8 = possible.difference(kept)
    if not int8:
        reasons = "; ".join(f"{layer.title}: {layer.reason}" for layer in layers) or "it has no convolutions"
        raise CalibrationError(f"nothing in this model can run in INT8 ({reasons}). Use FP16.")
    wanted = {layer.data for layer in layers if not layer.reason}
    summing = {name for name in possible if not graph.resamples(graph.producer[name])}
    wanted |= {tensor for node in graph.nodes for tensor in _residual(graph, node, summing, summing & int8)}
    groups = _concat_groups(graph, wanted)
    wanted = wanted.union(*groups)
    order = [name for name in (*graph.inputs, *graph.position) if name in wanted]
    return Placement(layers, tuple(order), groups)


def _refuse_unknown(kept: Collection[str], possible: Collection[str]) -> None:
    unknown = sorted(set(kept).difference(possible))
    if unknown:
        near = difflib.get_close_matches(unknown[0], possible, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise CalibrationError(f"this model has no layer {unknown[0]!r} that could run in INT8.{hint}")


def float_reason(graph: Graph, node: NodeProto) -> str:
    """Why a layer stays float; empty if it can run in INT8."""
    data, weights = graph.factors(node)
    if not graph.has_weights(node) or data in graph.constants:
        return "its weights are not constant"
    if node.op_type == "MatMul" and len(graph.constants[weights].dims) != 2:
        return "its weights are a batch of matrices"
    return ""


def _layer(graph: Graph, node: NodeProto) -> Layer:
    data, weights = graph.factors(node)
    axis = _channel_axis(node, weights)
    return Layer(title(node), node.output[0], data, weights, axis, float_reason(graph, node))


def _channel_axis(node: NodeProto, weights: str) -> int:
    if node.op_type == "Conv" or weights == node.input[0]:
        return 0
    if node.op_type == "Gemm":
        return 1 - attribute(node, "transB", 0)
    return 1


def _residual(graph: Graph, node: NodeProto, possible: set[str], int8: set[str]) -> Iterable[str]:
    """The inputs of a sum that are quantised: none unless the layer that it becomes a part of runs in INT8."""
    if node.op_type != "Add" or graph.shape(node.input[0]) != graph.shape(node.input[1]):
        return ()
    if any(name in graph.constants for name in node.input):
        return ()
    fused = [name for name in node.input if _ends_layer(graph, name, possible)]
    if not fused:
        return ()
    # Of two convolutions TensorRT fuses the sum into the one that runs last.
    last = max(fused, key=graph.position.__getitem__)
    return (name for name in node.input if name != last and _ends_layer(graph, last, int8))


def _ends_layer(graph: Graph, tensor: str, int8: set[str]) -> bool:
    """Whether a tensor is an INT8 layer's own result, and read by one node only."""
    node = graph.producer.get(tensor)
    if node is None or len(graph.consumers[tensor]) != 1 or tensor in graph.outputs:
        return False
    return tensor in int8 or (node.op_type in TRANSPARENT and _ends_layer(graph, node.input[0], int8))


def _concat_groups(graph: Graph, wanted: set[str]) -> tuple[frozenset[str], ...]:
    """Tensors that a concatenation ties together, if its output is wanted itself or by another concatenation."""
    groups: list[frozenset[str]] = []
    for node in reversed(graph.nodes):
        tied = frozenset([*node.input, *node.output])
        if node.op_type != "Concat" or not (node.output[0] in wanted or any(node.output[0] in g for g in groups)):
            continue
        touching = [group for group in groups if group & tied]
        groups = [group for group in groups if group not in touching] + [tied.union(*touching)]
    return tuple(frozenset(name for name in group if name not in graph.constants) for group in groups)
