"""Upsampling of a single pixel, dropped."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph import constant, node, replace, static_size

BROADCASTING = {"Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "PRelu", "Sub", "Sum", "Where"}
"""Operations that stretch an axis of length one by themselves."""


class BroadcastUpsample:
    """Replace the Resize of a 1x1 map: every interpolation of one pixel is that pixel.

    Handles: any mode and coordinate transformation but `tf_crop_and_resize`. A consumer that broadcasts, beside
    an operand of full size, takes the 1x1 map itself; for the others (Concat, Conv) there is one Expand.

    Leaves: maps with more than one row or column, and Resize to a size that is not fixed.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        upsamplings = [n for n in model.graph if _is_upsampled_pixel(n)]
        for resize in upsamplings:
            _broadcast(model.graph, resize)
        return model, bool(upsamplings)


def _is_upsampled_pixel(resize: ir.Node) -> bool:
    if resize.op_type != "Resize" or static_size(resize.outputs[0]) is None:
        return False
    mode = resize.attributes.get("coordinate_transformation_mode")
    return static_size(resize.inputs[0]) == (1, 1) and (mode is None or mode.as_string() != "tf_crop_and_resize")


def _broadcast(graph: ir.Graph, resize: ir.Node) -> None:
    pixel, full = resize.inputs[0], resize.outputs[0]
    assert pixel is not None
    for consumer, index in list(full.uses()):
        if _broadcasts(consumer, full):
            consumer.replace_input_with(index, pixel)
    if full.uses() or full.is_graph_output():
        size = constant(graph, f"{resize.name}.shape", np.array([1, 1, *(static_size(full) or ())]))
        replace(resize, [node("Expand", [pixel, size], resize, "broadcast")])
    else:
        graph.remove(resize, safe=True)


def _broadcasts(consumer: ir.Node, full: ir.Value) -> bool:
    """Whether another operand of `consumer` has the full size already."""
    others = [value for value in consumer.inputs if value is not full]
    # The slope of PRelu must not be larger than its input.
    if consumer.op_type == "PRelu" and consumer.inputs[0] is full:
        return False
    return consumer.op_type in BROADCASTING and any(static_size(v) == static_size(full) for v in others)
