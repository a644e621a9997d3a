"""A factor in front of a norm, which divides it out again."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from .graph import node

RESHAPING = ("Reshape", "Squeeze", "Unsqueeze")


class SignBeforeNorm:
    """Multiply a group of channels by the sign of its factor, not by the factor, in front of the group's norm.

    With mean m, variance v, epsilon e, `(a x - a m) / sqrt(a^2 v + e)` is `sign(a) (x - m) / sqrt(v + e / a^2)`:
    all that is left of the factor a is its sign, and its part in the epsilon. As float16 a map loses its digits by
    a small factor, and everything by one below 6e-8; by the sign, nothing.

    Handles: GroupNormalization, and InstanceNormalization, which group norms are before opset 21, of a Mul by one
    computed factor for each group, reshaped or not in between (GALD-Net, where a group's attention is one number).

    Bound: answers before the norm's scale and shift change by `|1 - 1 / a^2| e / v` of themselves at most. At full
    frame GALD-Net's e is 1.5e-16: even an attention of 1e-4 changes them by 1.5e-8 / v.

    Leaves: factors that are constants, factors for anything but the norm's groups, products with another use.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        changed = False
        for norm in list(model.graph):
            if norm.op_type in ("InstanceNormalization", "GroupNormalization"):
                changed |= _keep_sign(model.graph, norm)
        return model, changed


def _keep_sign(graph: ir.Graph, norm: ir.Node) -> bool:
    reader, position = _entry(norm, 0)
    x = reader.inputs[position]
    product = x.producer() if x is not None else None
    if x is None or product is None or product.op_type != "Mul" or len(x.uses()) != 1 or x.is_graph_output():
        return False
    for index, factor in enumerate(product.inputs):
        if _is_per_group(factor, x, norm):
            # As near as can be to what computes it: reshaping may be float16, which holds no small factors.
            return _take_sign(graph, *_entry(product, index))
    return False


def _entry(reader: ir.Node, index: int) -> tuple[ir.Node, int]:
    """Where an input of `reader` comes in before it is reshaped for it alone: the node, and the number there."""
    x = reader.inputs[index]
    before = x.producer() if x is not None else None
    if x is None or before is None or before.op_type not in RESHAPING or len(x.uses()) != 1:
        return reader, index
    return _entry(before, 0)


def _is_per_group(factor: ir.Value | None, product: ir.Value, norm: ir.Node) -> bool:
    """Whether `factor` is one number for each group of what is normed, and the product has the same groups."""
    own, whole, normed = (_shape_of_one(value) for value in (factor, product, norm.inputs[0]))
    if not (own and whole and normed):
        return False
    groups = norm.attributes["num_groups"].as_int() if "num_groups" in norm.attributes else normed[0]
    return own == (groups, *[1] * (len(whole) - 1)) and whole[0] == groups and prod(whole) == prod(normed)


def _shape_of_one(value: ir.Value | None) -> tuple[int, ...]:
    """The axes behind the first; none where they are not fixed numbers."""
    axes = value.shape[1:] if value is not None and value.shape is not None else ()
    sizes = tuple(size for size in axes if isinstance(size, int))
    return sizes if len(sizes) == len(axes) else ()


def _take_sign(graph: ir.Graph, reader: ir.Node, index: int) -> bool:
    """Let `reader` have the sign of its input, if that is computed and no sign yet."""
    factor = reader.inputs[index]
    computed = factor.producer() if factor is not None else None
    if factor is None or computed is None or computed.op_type in ("Constant", "Sign"):
        return False
    sign = node("Sign", [factor], reader, "sign")
    sign.outputs[0].shape = factor.shape
    graph.insert_before(reader, sign)
    reader.replace_input_with(index, sign.outputs[0])
    return True
