"""What several passes do to a graph."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """A new initializer; `name` gets a number where it is taken."""
    free = next(n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
                if n not in graph.initializers)  # fmt: skip
    # np.ascontiguousarray would make a vector of a scalar.
    tensor = ir.tensor(np.asarray(array, order="C"), name=free)
    value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def constant_array(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """What `value` holds, where that is known from the file."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def node(
    op_type: str, inputs: list[ir.Value | None], old: ir.Node, role: str, **attributes: int | float | list[int]
) -> ir.Node:
    """A node of the default domain that helps to replace `old`, with an output of its type, named by `role`."""
    name = f"{old.name}.{role}"
    output = ir.Value(name=f"{name}.0", type=old.outputs[0].type)
    typed = [ir.Attr(key, *_typed(value)) for key, value in attributes.items()]
    return ir.Node("", op_type, inputs, typed, outputs=[output], name=name)


def replace(old: ir.Node, new: list[ir.Node]) -> None:
    """Put `new` where `old` stands; the last one's output takes the place of the first of `old`."""
    graph = old.graph
    assert graph is not None
    before, after = old.outputs[0], new[-1].outputs[0]
    after.shape, after.name, before.name = before.shape, before.name, None
    graph.insert_before(old, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def static_size(value: ir.Value | None) -> tuple[int, int] | None:
    """Rows and columns of `(..., H, W)`; None where they are not fixed numbers."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    rows, columns = value.shape[-2], value.shape[-1]
    return (rows, columns) if isinstance(rows, int) and isinstance(columns, int) else None


def _typed(value: int | float | list[int]) -> tuple[ir.AttributeType, Any]:
    if isinstance(value, list):
        return ir.AttributeType.INTS, value
    return (ir.AttributeType.INT if isinstance(value, int) else ir.AttributeType.FLOAT), value
