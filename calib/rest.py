"""What is float in an INT8 model, and which of it float16 can hold.

A builder of strongly typed networks takes the graph's types literally: float32 tensors go through memory as such.
So float16 begins where the result of an INT8 layer's kernel is read as float, and ends in front of QuantizeLinear.
What stays float32 in an FP16 model (fp16.py) does here too, and so do

- the kernels of INT8 layers, from DequantizeLinear to QuantizeLinear: nothing between the two goes through memory,
  no cast stands where builders look for a pair, and scales stay the float32 of the calibration cache;
- operators that copy 8 bits in front of a QuantizeLinear, before which builders move it;
- operators on tensors whose calibrated range float16 lacks.

docs/decisions.md tells what else was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from onnx import NodeProto

from .cache import Ranges
from .fp16 import FLOAT16_MAX, assign_types
from .graph import Graph, title
from .placement import TRANSPARENT, Placement

Rest = Literal["fp16", "fp32"]
"""Precision of what is not INT8 in an INT8 model."""
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
"""Operators that the kernel of an INT8 layer applies to its own result."""
COPYING = ("MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat")
"""Operators that give the same whether their inputs are rounded or their result, if those share one scale."""


def assign_rest(graph: Graph, placement: Placement, ranges: Ranges) -> tuple[frozenset[str], dict[str, str]]:
    """Decide for each node that is not INT8 whether it computes in float16.

    Args:
        graph: of the float32 model, before Q/DQ nodes are put in.
        placement: where they will be.
        ranges: of the tensors that are quantised.

    Returns:
        The first output of each that does; and of each other behind the first layer its title and why not.
    """
    unheld = {name for name, amax in ranges.amax.items() if amax > FLOAT16_MAX}
    half, kept = assign_types(graph, unheld)
    eight_bit = {*kernel_nodes(graph, placement), *copying_nodes(graph, placement)}
    titles = {title(node) for node in graph.nodes if node.output[0] in eight_bit}
    return half - eight_bit, {name: reason for name, reason in kept.items() if name not in titles}


def kernel_nodes(graph: Graph, placement: Placement) -> Iterator[str]:
    """First output of every node that is part of an INT8 layer's kernel: the layer, and what is folded into it."""
    quantized = frozenset(placement.activations)
    for output in placement.int8_outputs:
        yield from _kernel(graph, output, quantized)


def copying_nodes(graph: Graph, placement: Placement) -> Iterator[str]:
    """First output of every node that copies 8 bits."""
    quantized = frozenset(placement.activations)
    for node in graph.nodes:
        if node.op_type in COPYING and _is_quantized(graph, node.output[0], quantized):
            yield node.output[0]


def _kernel(graph: Graph, tensor: str, quantized: frozenset[str], active: bool = False) -> Iterator[str]:
    """First outputs from the node that gives `tensor` on; `active` tells that its activation is behind us."""
    yield tensor
    readers = graph.consumers[tensor]
    if active or tensor in quantized or tensor in graph.outputs or len(readers) != 1:
        return
    (reader,) = readers
    if reader.op_type in (*TRANSPARENT, *ACTIVATIONS) or _takes_sum(graph, reader, tensor, quantized):
        yield from _kernel(graph, reader.output[0], quantized, reader.op_type in ACTIVATIONS)


def _takes_sum(graph: Graph, node: NodeProto, tensor: str, quantized: frozenset[str]) -> bool:
    """Whether a node adds a bias to `tensor`, or 8 bits of the same shape."""
    if node.op_type != "Add":
        return False
    other = next((name for name in node.input if name != tensor), tensor)
    same = graph.shape(other) == graph.shape(tensor)
    return other in graph.constants or (other in quantized and same)


def _is_quantized(graph: Graph, tensor: str, quantized: frozenset[str]) -> bool:
    """Whether a tensor is read as 8 bits by whoever reads it, behind operators that copy."""
    if tensor in quantized:
        return True
    readers = graph.consumers[tensor]
    return (
        bool(readers)
        and tensor not in graph.outputs
        and all(r.op_type in COPYING and _is_quantized(graph, r.output[0], quantized) for r in readers)
    )
