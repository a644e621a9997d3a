"""Sums over so many values that they leave float16's range, or lose in it what distinguishes them.

They are the products that add up a whole map: energies of attention between channels (DANet), the graphs of GloRe
and DGCNet, the bases of EMANet. A convolution adds up as many, but training keeps what it gives in range.

Scaled by 1/N such a sum would stay in range as float16, and still lose its digits: DGCNet adds a correction of the
size of 1 to a graph of the size of N, DANet takes the exponentials of differences. So they are float32 until
something brings them back into range, below half a percent of such a network's work.
"""

from __future__ import annotations

from onnx import NodeProto

from .graph import Graph, attribute

MANY = 512
"""Terms from which on a sum counts: more than a query has channels, fewer than a map has positions. DANet's
energies, sums of 32768 squares at 1024x2048, pass 65504 where activations pass 1.4."""
REDUCTIONS = ("ReduceSum", "ReduceL1", "ReduceSumSquare")
BOUNDING = {
    *("Div", "Softmax", "LogSoftmax", "Sigmoid", "Tanh", "LpNormalization"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
}
"""Operators that bring such a sum back into range, as layers with weights do."""


def is_long_sum(graph: Graph, node: NodeProto) -> bool:
    """Whether a node adds up `MANY` computed values or more, other than to their mean."""
    if node.op_type in REDUCTIONS:
        return graph.elements(node.input[0]) >= MANY * graph.elements(node.output[0])
    if node.op_type != "MatMul" or any(name in graph.constants for name in node.input):
        return False
    shape = graph.shape(node.input[0])
    terms = (shape[-1] if shape else None) or MANY  # safe where it is not known
    return terms >= MANY and not _is_mean(graph, node)


def bounds(graph: Graph, node: NodeProto) -> bool:
    """Whether what a node gives is in range even if it reads a long sum."""
    return node.op_type in BOUNDING or graph.has_weights(node)


def _is_mean(graph: Graph, product: NodeProto) -> bool:
    """Whether one operand of a matrix product is a softmax over what is added up."""
    return any(_is_softmax(graph, name, axis) for name, axis in zip(product.input, (-1, -2), strict=True))


def _is_softmax(graph: Graph, tensor: str, axis: int) -> bool:
    """Whether a tensor is a softmax over `axis`, transposed or not."""
    node, rank = graph.producer.get(tensor), len(graph.shape(tensor))
    if node is None or rank == 0:
        return False
    if node.op_type == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
        return _is_softmax(graph, node.input[0], order[axis])
    return node.op_type == "Softmax" and (attribute(node, "axis", -1) - axis) % rank == 0
