"""Where in a model the classes' logits are."""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto

from .graph import attribute

DECIDED = ("Cast", "Squeeze", "Reshape", "Identity", "Transpose", "Clip")
"""Operators between the choice of a class and the labels."""


def find_logits(model: onnx.ModelProto, enlarged: bool = False) -> str | None:
    """The tensor `(N, classes, ...)` that labels are chosen from; None where the model's end is of another kind.

    It is the output itself of a model that returns logits, and otherwise what ArgMax or UpsampleArgmax reads.

    Args:
        model: float or typed.
        enlarged: take it behind a last Resize, not in front of it.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    (output, *_) = model.graph.output
    name: str = output.name
    if output.type.tensor_type.elem_type != TensorProto.FLOAT:
        node: NodeProto | None = producer.get(name)
        while node is not None and node.op_type in DECIDED:
            node = producer.get(node.input[0])
        if node is None or not _chooses_class(node):
            return None
        name = node.input[0]
    last = producer.get(name)
    if last is not None and last.op_type == "Resize" and not enlarged:
        name = last.input[0]
    return name


def _chooses_class(node: NodeProto) -> bool:
    return node.op_type == "UpsampleArgmax" or (node.op_type == "ArgMax" and attribute(node, "axis", 0) == 1)
