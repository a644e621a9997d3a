"""A division of columns that the division by their lengths undoes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import constant, constant_array


class NormaliseOnce:
    """Divide the columns of a matrix product by their lengths alone, not by the sums of their weights before that.

    With features x, weights z whose columns sum to s, and epsilons e and d, the columns m of `x z / (s + e)`
    become `m / (|m| + d)`. That is `x z / (|x z| + d (s + e))`, of which the pass makes `x z / (|x z| + d e)`: a
    map of weights is not summed, read and written once more. Over a full frame its values would be near float16's
    smallest normal number.

    Handles: MatMul, ReduceL2, Add and Div behind a Softmax that is divided by its ReduceSum and e (EMANet).

    Bound: directions stay. A column grows by `d / |x z / s|` of its length at most: by 1e-6 in EMANet, where the
    mean of the features that it stands for is of length 1.

    Leaves: quotients and products that have another use.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        changed = False
        for quotient in [n for n in model.graph if n.op_type == "Div"]:
            changed |= _normalise_once(model.graph, quotient)
        return model, changed


def _normalise_once(graph: ir.Graph, outer: ir.Node) -> bool:
    """Leave out the division in front of the product whose columns `outer` divides by their lengths."""
    product = _producer(outer.inputs[0], "MatMul")
    inner = _producer(product.inputs[1], "Div") if product is not None else None
    lengths, sums = _divisor(outer, "ReduceL2"), _divisor(inner, "ReduceSum")
    if product is None or inner is None or lengths is None or sums is None:
        return False
    weights = inner.inputs[0]
    # Of the product, its lengths and itself over them.
    uses = [len(node.outputs[0].uses()) for node in (product, lengths, inner)]
    if uses != [2, 1, 1] or product.outputs[0].is_graph_output() or _producer(weights, "Softmax") is None:
        return False
    lengths.replace_input_with(1, constant(graph, f"{lengths.name}.epsilon", _product_of(lengths, sums)))
    product.replace_input_with(1, weights)
    for unused in (inner, sums, *sums.predecessors()):
        if not unused.outputs[0].uses():
            graph.remove(unused, safe=True)
    return True


def _product_of(*additions: ir.Node) -> npt.NDArray[Any]:
    """The product of what they add, in its type."""
    constants = [array for add in additions if (array := constant_array(add.inputs[1])) is not None]
    product: npt.NDArray[Any] = np.prod([array.astype(np.float64) for array in constants], axis=0)
    return product.astype(constants[0].dtype)


def _divisor(quotient: ir.Node | None, reduction: str) -> ir.Node | None:
    """The Add that gives what `quotient` divides by: a constant and that reduction of what is divided."""
    add = _producer(quotient.inputs[1], "Add") if quotient is not None else None
    if quotient is None or add is None:
        return None
    epsilon, reduced = constant_array(add.inputs[1]), _producer(add.inputs[0], reduction)
    if epsilon is None or epsilon.size != 1 or not epsilon > 0 or reduced is None:
        return None
    return add if reduced.inputs[0] is quotient.inputs[0] and _reduces_rows(reduced) else None


def _reduces_rows(reduction: ir.Node) -> bool:
    x, keeps = reduction.inputs[0], reduction.attributes.get("keepdims")
    axes = constant_array(reduction.inputs[1]) if len(reduction.inputs) > 1 else None
    if x is None or x.shape is None or axes is None or (keeps is not None and keeps.as_int() != 1):
        return False
    return [int(axis) % len(x.shape) for axis in axes.flatten()] == [len(x.shape) - 2]


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None
