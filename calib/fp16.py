"""FP16 in the graph: casts where float16 begins and ends, weights stored as float16.

Every operator's float inputs have one type, so TensorRT builds the graph strongly typed. Inputs and outputs of the
model keep their types. float16 begins at the first layer with weights: what prepares the pixels stays float32, and
so does every operator in `KEPT`, every one whose constants do not fit, and every long sum (sums.py) with what
reads it before something brings it back into range. Those of `export.ops` take either type and compute in float32.
The final resize and argmax are float16: on CamVid, rounding the upsampled logits of a Fast-SCNN changed 1 label in
7000, and it halves the largest tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from .graph import Change, Graph, array_of, check, drop_unused, set_nodes, title
from .sums import bounds, is_long_sum

SUMS = "it adds up many values, which overflow or lose digits in float16"
CARRIED = "it reads what float16 cannot hold, and nothing has brought that back into range"
SIGNS = "float16 makes small values 0, which has no sign"
LARGE = "its result goes beyond float16's range"
POWERS = "its result leaves float16's range for ordinary arguments"
KEPT = {
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "CumSum"), SUMS),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"), SUMS),
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "GroupNormalization"), SUMS),
    **dict.fromkeys(("LpNormalization", "Softmax", "LogSoftmax"), SUMS),
    **dict.fromkeys(("Exp", "Log", "Pow", "Reciprocal", "Softplus"), POWERS),
    "Sign": SIGNS,
}
"""Why an operator stays float32."""
FLOAT16_MAX = float(np.finfo(np.float16).max)


def cast_to_fp16(model: onnx.ModelProto) -> Change:
    """Type a float32 model in place."""
    graph = Graph(model)
    half, kept = assign_types(graph)
    flushed = count_flushed(graph, half)
    set_nodes(model, list(Rewriter(graph, half).nodes()))
    drop_unused(model)
    check(model)
    return Change(half, kept, flushed)


def assign_types(graph: Graph, unheld: Set[str] = frozenset()) -> tuple[frozenset[str], dict[str, str]]:
    """Decide for each node whether it computes in float16.

    Args:
        graph: of a float32 model.
        unheld: tensors that are known to go beyond float16's range.

    Returns:
        The first output of each that does; and of each behind the first layer that does not, its title and why.
    """
    behind: set[str] = set()
    beyond: set[str] = set(unheld)
    half: set[str] = set()
    kept: dict[str, str] = {}
    for node in graph.nodes:
        if not (graph.has_weights(node) or behind.intersection(node.input)):
            continue
        results = [name for name in node.output if graph.is_float(name)]
        behind.update(results)
        reads_beyond = bool(beyond.intersection(node.input))
        if not bounds(graph, node) and (reads_beyond or is_long_sum(graph, node) or vanishing(graph, node)):
            beyond.update(results)
        carried = CARRIED if reads_beyond else LARGE if unheld & set(results) else ""
        if reason := float_reason(graph, node) or carried:
            kept[title(node)] = reason
        else:
            half.add(node.output[0])
    return frozenset(half), kept


def float_reason(graph: Graph, node: NodeProto) -> str:
    """Why a node stays float32 by itself; empty if it can be float16."""
    if node.domain not in ("", "ai.onnx", CUSTOM_DOMAIN):
        return "it is not an ONNX operator, and may be written for float32"
    too_large = [name for name in node.input if name in graph.constants and not _fits(graph, name)]
    if too_large:
        return f'its constant "{too_large[0]}" is beyond float16\'s {FLOAT16_MAX:.0f}'
    if small := vanishing(graph, node):
        return f'its constant "{small}" would be 0 in float16'
    return SUMS if is_long_sum(graph, node) else KEPT.get(node.op_type, "")


def vanishing(graph: Graph, node: NodeProto) -> str:
    """Name of a single number, as an epsilon in a divisor, that float16 makes 0; empty if there is none."""
    arrays = {name: array_of(graph.constants[name]) for name in node.input if _is_number(graph, name)}
    return next((name for name, array in arrays.items() if (array != 0) & (array.astype(np.float16) == 0)), "")


def count_flushed(graph: Graph, half: frozenset[str]) -> int:
    """How many constants of the nodes in `half`, other than 0, become 0 in float16."""
    nodes = [node for node in graph.nodes if node.output[0] in half]
    names = {name for node in nodes for name in node.input if name in graph.constants and graph.is_float(name)}
    arrays = [array_of(graph.constants[name]) for name in names]
    return sum(int(((array != 0) & (array.astype(np.float16) == 0)).sum()) for array in arrays)


class Rewriter:
    """Gives nodes that read and write float16 where they are in `half`, and float32 elsewhere.

    A tensor in its other type is made once, before its first reader, as `<tensor>/fp16` or `<tensor>/fp32`.
    """

    def __init__(self, graph: Graph, half: frozenset[str]) -> None:
        self.graph = graph
        self.half = half
        self.names = {(name, False): name for name in (*graph.inputs, *graph.constants)}
        """Under which name a tensor exists, by its original name and whether as float16."""

    def nodes(self) -> Iterator[NodeProto]:
        """The nodes, with casts between them, in graph order."""
        for node in self.graph.nodes:
            half = node.output[0] in self.half
            for i, name in enumerate(node.input):
                if self.graph.is_float(name):
                    wanted = (name, half and not takes_only_float32(self.graph, node, i))
                    yield from self._provide(*wanted)
                    node.input[i] = self.names[wanted]
            if half and node.op_type == "Cast":
                retarget_cast(node)
            yield from self._outputs(node, half)

    def _provide(self, tensor: str, half: bool) -> Iterator[NodeProto]:
        if (tensor, half) in self.names:
            return
        if tensor in self.graph.constants:
            self.names[tensor, half] = self._half_constant(tensor)
            return
        self.names[tensor, half] = f"{tensor}/fp{16 if half else 32}"
        yield cast(self.names[tensor, not half], self.names[tensor, half], half)

    def _outputs(self, node: NodeProto, half: bool) -> Iterator[NodeProto]:
        """The node, and a cast behind each of its results that is a float32 output of the model."""
        casts = []
        for i, name in enumerate(node.output):
            self.names[name, half] = name
            if half and name in self.graph.outputs and self.graph.is_float(name):
                self.names[name, half] = node.output[i] = f"{name}/fp16"
                self.names[name, False] = name
                casts.append(cast(f"{name}/fp16", name, half=False))
        yield node
        yield from casts

    def _half_constant(self, tensor: str) -> str:
        name = f"{tensor}/fp16"
        values = array_of(self.graph.constants[tensor]).astype(np.float16)
        self.graph.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def takes_only_float32(graph: Graph, node: NodeProto, position: int) -> bool:
    """Whether an operator's definition wants float32 for an input, whatever its other types: Resize its scales."""
    if node.domain == CUSTOM_DOMAIN:
        return False
    parameters = onnx.defs.get_schema(node.op_type, graph.opset, "").inputs
    return parameters[min(position, len(parameters) - 1)].type_str == "tensor(float)"


def retarget_cast(node: NodeProto) -> None:
    """Make a cast to float32 one to float16."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def cast(source: str, result: str, half: bool) -> NodeProto:
    """A cast to float16, or to float32."""
    to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [result], name=f"{result}/cast", to=to)


def _is_number(graph: Graph, name: str) -> bool:
    return name in graph.constants and graph.is_float(name) and graph.elements(name) == 1


def _fits(graph: Graph, name: str) -> bool:
    return not graph.is_float(name) or bool(np.abs(array_of(graph.constants[name])).max(initial=0) <= FLOAT16_MAX)
