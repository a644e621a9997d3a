"""Memory and traffic of one call of an operator, counted on shapes: computed by its body, and by its kernel."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx import helper
from onnxscript import optimizer
from torch import Tensor

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from .op import Op

VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
"""Nodes whose answer is their input seen otherwise: they move nothing."""
ELEMENT_TYPES = {
    "torch.float16": onnx.TensorProto.FLOAT16,
    "torch.float32": onnx.TensorProto.FLOAT,
    "torch.uint8": onnx.TensorProto.UINT8,
    "torch.int32": onnx.TensorProto.INT32,
    "torch.int64": onnx.TensorProto.INT64,
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one call."""

    peak_bytes: int
    """Most that inputs, answer and what lies between take at once."""
    moved_bytes: int
    """Read and written."""


def kernel_cost(op: Op, args: tuple[Any, ...]) -> Cost:
    """Each input is read once and the answer is written once; nothing lies between."""
    inputs, _ = op.arguments(*args)
    total = sum(x.nbytes for x in [*inputs, op.reference(*args)])
    return Cost(total, total)


def body_cost(op: Op, args: tuple[Any, ...], opset: int = 20) -> Cost:
    """Every node reads its inputs and writes its outputs; a tensor goes when its last reader is done."""
    graph = inlined(op, args, opset)
    home: dict[ir.Value, ir.Value] = {}
    """Of a view: whose memory it shares."""
    for node in graph:
        for output in node.outputs:
            source = node.inputs[0] if node.op_type in VIEWS else None
            home[output] = output if source is None else home.get(source, source)
    last_use = {home.get(value, value): i for i, node in enumerate(graph) for value in node.inputs if value}
    last_use |= {home.get(value, value): len(graph) for value in graph.outputs}
    live = {value: size for value in graph.inputs if (size := nbytes(value))}
    peak = moved = 0
    for i, node in enumerate(graph):
        if node.op_type not in VIEWS:
            read = {home.get(value, value) for value in node.inputs if value and value.const_value is None}
            moved += sum(map(nbytes, read)) + sum(map(nbytes, node.outputs))
            live |= {output: nbytes(output) for output in node.outputs}
        peak = max(peak, sum(live.values()))
        live = {value: size for value, size in live.items() if last_use.get(value, -1) > i}
    return Cost(peak, moved)


def inlined(op: Op, args: tuple[Any, ...], opset: int) -> ir.Graph:
    """The body for these arguments, with every shape known and all that depends on shapes alone computed."""
    model = onnx.inliner.inline_local_functions(single_node_model(op, args, opset))
    folded = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    for _ in range(2):  # shapes that depend on folded shapes
        optimizer.fold_constants(folded, output_size_limit=2**30)
        optimizer.remove_unused_nodes(folded)
        forget_shapes(folded.graph)
        folded = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(folded), data_prop=True))
    return folded.graph


def forget_shapes(graph: ir.Graph) -> None:
    """Of values between nodes: inference keeps what it once called a length, also where that is known now."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    for value in graph.initializers.values():
        if value.const_value is not None:
            value.shape = ir.Shape(value.const_value.numpy().shape)


def single_node_model(op: Op, args: tuple[Any, ...], opset: int) -> onnx.ModelProto:
    """A model of one call, with the body as its local function."""
    inputs, attributes = op.arguments(*args)
    node = helper.make_node(op.name, op.inputs, ["y"], domain=CUSTOM_DOMAIN)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    described = [_describe(name, x) for name, x in zip(op.inputs, inputs, strict=True)]
    graph = helper.make_graph([node], op.name, described, [_describe("y", op.reference(*args))])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CUSTOM_DOMAIN, 1)]
    return helper.make_model(graph, functions=[op.function(opset)], opset_imports=opsets, ir_version=10)


def nbytes(value: ir.Value) -> int:
    """Of a tensor; 0 of what never changes.

    Raises:
        ValueError: if its shape is not known.
    """
    if value.const_value is not None:
        return 0
    shape = [n for n in value.shape or () if isinstance(n, int)]
    if value.shape is None or value.dtype is None or len(shape) < len(value.shape):
        raise ValueError(f"the shape of {value.name} is not known: {value.shape}")
    return int(prod(shape) * value.dtype.itemsize)


def _describe(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[str(tensor.dtype)], tensor.shape)
