"""What Q/DQ placement and FP16 typing ask of an ONNX graph, and do to it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from roadseg.runtime import CalibrationError

Shape = tuple[int | None, ...]
"""None where a dimension is open."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by weights, see `Graph.factors`."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What a pass made of a model."""

    nodes: frozenset[str]
    """First output of every node that now computes in the new precision."""
    kept: dict[str, str]
    """Why a node does not, by its title."""
    flushed_weights: int = 0
    """Weights, other than 0, that became 0."""
    float32: dict[str, str] = dataclasses.field(default_factory=dict)
    """Where what is not INT8 is float16: why a node is float32 all the same, by its title."""


class Graph:
    """A model's nodes with the tensors between them looked up by name. A snapshot: it does not follow changes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.position = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        """Of the node that produces a tensor, in graph order."""
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes: dict[str, Shape] = {name: tuple(t.dims) for name, t in self.constants.items()}
        self._types: dict[str, int] = {name: t.data_type for name, t in self.constants.items()}
        for node in self.nodes:
            refuse_control_flow(node)
            self.producer |= dict.fromkeys(node.output, node)
            for name in filter(None, node.input):
                self.consumers[name].append(node)
        for value in known_values(model):
            self._shapes[value.name] = shape_of(value)
            self._types[value.name] = value.type.tensor_type.elem_type

    def shape(self, tensor: str) -> Shape:
        """Of a tensor; empty for a scalar, and where inference does not reach."""
        return self._shapes.get(tensor, ())

    def type_of(self, tensor: str) -> int:
        """Of a tensor, as TensorProto counts types; UNDEFINED where inference does not reach."""
        return self._types.get(tensor, TensorProto.UNDEFINED)

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor is float32."""
        return self.type_of(tensor) == TensorProto.FLOAT

    def is_half(self, tensor: str) -> bool:
        """Whether a tensor is float16."""
        return self._types.get(tensor) == TensorProto.FLOAT16

    def factors(self, node: NodeProto) -> tuple[str, str]:
        """The data and the weights that a node in `WEIGHTED` multiplies.

        Weights are the second input, but for a matrix product with a constant in front of what is computed.
        """
        first, second = node.input[:2]
        turned = node.op_type == "MatMul" and first in self.constants and second not in self.constants
        return (second, first) if turned else (first, second)

    def has_weights(self, node: NodeProto) -> bool:
        """Whether a node multiplies by a constant float32 matrix or kernel."""
        weights = self.constants.get(self.factors(node)[1]) if node.op_type in WEIGHTED else None
        return weights is not None and weights.data_type == TensorProto.FLOAT and len(weights.dims) >= 2

    def resamples(self, node: NodeProto) -> bool:
        """Whether a node multiplies a map by a constant matrix along its rows or columns, as pooling does."""
        return node.op_type == "MatMul" and self.has_weights(node) and len(self.shape(node.output[0])) > 3

    def first_layers(self) -> frozenset[str]:
        """The layers with weights that read the model's input through no other, by output tensor."""
        found: set[str] = set()
        behind: set[str] = set()
        for node in self.nodes:
            is_behind = bool(behind.intersection(node.input))
            if self.has_weights(node) and not is_behind:
                found.add(node.output[0])
            if is_behind or self.has_weights(node):
                behind.update(node.output)
        return frozenset(found)

    def layer_macs(self) -> dict[str, int]:
        """Multiply-accumulate operations per frame of every convolution and matrix product, by output tensor."""
        return {node.output[0]: self.macs(node) for node in self.nodes if node.op_type in WEIGHTED}

    def macs(self, node: NodeProto) -> int:
        """Multiply-accumulate operations of a convolution or matrix product for one frame.

        Open dimensions count as 1; 0 for products with a vector, or of shapes that are not known.
        """
        weights = [size or 1 for size in self.shape(node.input[1])]
        if len(weights) < 2:
            return 0
        outputs = self.elements(node.output[0])
        if node.op_type == "Conv":
            return outputs * prod(weights[1:])
        if node.op_type == "ConvTranspose":
            return self.elements(node.input[0]) * prod(weights[1:])
        rows_first = node.op_type == "MatMul" or not attribute(node, "transB", 0)
        return outputs * weights[-2 if rows_first else -1]

    def elements(self, tensor: str) -> int:
        """How many a tensor has for one frame; open dimensions count as 1."""
        return prod(dimension or 1 for dimension in self.shape(tensor))


def known_values(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """Type and shape of every input, output and, by inference, tensor in between.

    Raises:
        CalibrationError: if the graph contradicts itself.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise CalibrationError(
            f"the model's types or shapes contradict each other: {error}. Export it again."
        ) from error
    yield from inferred.input
    yield from inferred.value_info
    yield from inferred.output


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """The dimensions of a tensor."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((a.i for a in node.attribute if a.name == name), default)


def refuse_control_flow(node: NodeProto) -> None:
    """Raise CalibrationError if a node has a graph inside."""
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        raise CalibrationError(
            f"the node {title(node)} holds a graph of its own; branches and loops cannot be typed. "
            "Export the network without data-dependent control flow."
        )


def title(node: NodeProto) -> str:
    """A node as reports and errors name it."""
    return f'{node.op_type} "{node.name or node.output[0]}"'


def array_of(tensor: TensorProto) -> npt.NDArray[np.float32]:
    """The values of a float32 constant."""
    values: npt.NDArray[np.float32] = numpy_helper.to_array(tensor)
    return values


def lift_constants(model: onnx.ModelProto) -> None:
    """Turn Constant nodes that hold a tensor into initialisers, so that weights are found in one place."""
    for node in [n for n in model.graph.node if n.op_type == "Constant"]:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is not None:
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = node.output[0]
            model.graph.node.remove(node)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove initialisers that nothing reads, and notes on tensors that may have changed their type."""
    used = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def set_nodes(model: onnx.ModelProto, nodes: list[NodeProto]) -> None:
    """Replace all nodes."""
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def check(model: onnx.ModelProto) -> None:
    """Run onnx's full check, with shape inference, on a model this package made."""
    onnx.checker.check_model(model, full_check=True)
