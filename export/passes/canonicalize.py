"""One order, one set of names, nothing that differs from run to run."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from ..ops import OPS


class Canonicalize:
    """Make the file depend on what is computed, and on nothing else.

    - Nodes stand in the order in which a depth-first walk from the outputs completes them, so a node that
      nothing needs is gone. TensorRT's answer depends on the order (NVIDIA/TensorRT#2182).
    - A node is called `/<module path>/<op type>`, with a number from the second on; its output has its name.
    - A weight is called after its first use and its role there: `/classifier/conv/1/Conv.W`.
    - Constant nodes become initializers. Doc strings, metadata and opsets without a node are dropped.

    Handles: any graph whose nodes are named by `NameByModule`; a node without such a name takes the module of
    its first input.

    Leaves: the inside of subgraphs (If, Loop, Scan), and the names of graph inputs and outputs.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        before = _signature(model.graph)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        _order(model.graph)
        _name_nodes(model.graph)
        _name_weights(model.graph)
        model.graph.name = "main"
        common.RemoveUnusedOpsetsPass()(model)
        _strip(model)
        return model, _signature(model.graph) != before


def _signature(graph: ir.Graph) -> list[tuple[str | None, list[str | None]]]:
    return [(node.name, [value.name if value else None for value in node.inputs]) for node in graph]


def _strip(model: ir.Model) -> None:
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    for owner in (model, graph, *graph, *values):
        owner.doc_string = None
        owner.metadata_props.clear()


def _order(graph: ir.Graph) -> None:
    nodes = _needed(graph)
    kept = set(nodes)
    graph.remove([node for node in graph if node not in kept], safe=True)
    graph.remove(nodes)
    graph.extend(nodes)


def _needed(graph: ir.Graph) -> list[ir.Node]:
    """Nodes that the outputs need, each behind all it depends on."""
    done: dict[ir.Node, None] = {}
    stack = [(output.producer(), False) for output in reversed(graph.outputs)]
    while stack:
        node, complete = stack.pop()
        if node is None or node in done or node.graph is not graph:
            continue
        if complete:
            done[node] = None
            continue
        stack.append((node, True))
        stack.extend((value.producer(), False) for value in reversed(_read(node)))
    return list(done)


def _read(node: ir.Node) -> list[ir.Value]:
    """Values a node reads, those inside its subgraphs included."""
    values = [value for value in node.inputs if value is not None]
    for graph in _subgraphs(node):
        values.extend(value for inner in graph for value in _read(inner))
        values.extend(graph.outputs)
    return values


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _name_nodes(graph: ir.Graph) -> None:
    scopes: dict[ir.Node, str] = {}
    for node in graph:
        scopes[node] = _scope(node, scopes)
    taken: collections.Counter[str] = collections.Counter()
    for node in graph:
        name = f"{scopes[node]}/{node.op_type}"
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1
        for index, output in enumerate(node.outputs):
            if not output.is_graph_output():
                output.name = f"{node.name}_output_{index}" if index else node.name


def _scope(node: ir.Node, scopes: dict[ir.Node, str]) -> str:
    if node.name and node.name.startswith("/"):
        return node.name.rpartition("/")[0]
    producers = (value.producer() for value in node.inputs if value is not None)
    return next((scopes[p] for p in producers if p in scopes), "")


def _name_weights(graph: ir.Graph) -> None:
    unnamed = dict.fromkeys(graph.initializers.values())
    graph.initializers.clear()
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value in unnamed:
                del unnamed[value]
                value.name = f"{node.name}.{_role(node, index)}"
                graph.register_initializer(value)
    inner = {value for node in graph for value in _read(node)} | set(graph.outputs)
    for value in unnamed:
        if value in inner:
            graph.register_initializer(value)


def _role(node: ir.Node, index: int) -> str:
    """What ONNX calls input `index` of the node's operation; the number where it has any number of inputs."""
    if node.domain == CUSTOM_DOMAIN:
        return OPS[node.op_type].inputs[index]
    parameters = onnx.defs.get_schema(node.op_type, domain=node.domain).inputs
    if index < len(parameters) and parameters[index].option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
        return str(parameters[index].name)
    return str(index)
