"""Upsampling and argmax as one operator."""

from __future__ import annotations

import onnx_ir as ir

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from ..ops import UPSAMPLE_ARGMAX
from .graph import replace, static_size

COORDINATES = ("half_pixel", "align_corners")
"""What the operator knows."""
MOST_CLASSES = 256
"""That fit into a label."""


class FuseTail:
    """Replace the upsampling of logits and the choice among them by `UpsampleArgmax`.

    It never writes the upsampled logits: 159 MB in FP32 of 19 classes at 1024x2048. Where a runtime takes the
    operator's definition, that upsamples in FP32 also in an FP16 model, which ties fewer classes and takes more
    memory.

    Handles: a bilinear Resize of `(N, C, h, w)` to a fixed size, an ArgMax of its channels and a Cast to uint8,
    none of which anybody else reads. AttachFunctions has to come after it.

    Leaves: logits that have the labels' size already, antialiasing, other interpolations.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        casts = [node for node in model.graph if node.op_type == "Cast"]
        tails = [tail for cast in casts if (tail := _tail(cast))]
        for resize, best, cast in tails:
            replace(cast, [_fused(resize, cast)])
            model.graph.remove([best, resize], safe=True)
        if tails:
            model.opset_imports.setdefault(CUSTOM_DOMAIN, 1)
        return model, bool(tails)


def _tail(cast: ir.Node) -> tuple[ir.Node, ir.Node, ir.Node] | None:
    """The Resize and the ArgMax that a Cast to labels goes back to, and the Cast."""
    best = _only_source(cast, "ArgMax")
    resize = _only_source(best, "Resize") if best is not None else None
    if best is None or resize is None or _int(cast, "to", 0) != ir.DataType.UINT8:
        return None
    chooses = (_int(best, "axis", 0), _int(best, "keepdims", 1), _int(best, "select_last_index", 0)) == (1, 0, 0)
    return (resize, best, cast) if chooses and _is_known(resize) else None


def _only_source(node: ir.Node, op_type: str) -> ir.Node | None:
    """The node that a node's first input comes from, if it is of that type and nobody else reads it."""
    value = node.inputs[0]
    source = value.producer() if value is not None else None
    if value is None or source is None or source.op_type != op_type or source.domain:
        return None
    return source if len(value.uses()) == 1 and not value.is_graph_output() else None


def _is_known(resize: ir.Node) -> bool:
    """Whether the operator computes this interpolation."""
    logits = resize.inputs[0]
    shape = logits.shape if logits is not None else None
    classes = shape[1] if shape is not None and len(shape) == 4 else None
    return (
        isinstance(classes, int)
        and classes <= MOST_CLASSES
        and static_size(resize.outputs[0]) is not None
        and _string(resize, "mode", "nearest") == "linear"
        and _string(resize, "coordinate_transformation_mode", "half_pixel") in COORDINATES
        and _int(resize, "antialias", 0) == 0
    )


def _fused(resize: ir.Node, cast: ir.Node) -> ir.Node:
    size = static_size(resize.outputs[0])
    assert size is not None
    attributes = [
        ir.AttrInt64s("size", size),
        ir.AttrString("coordinates", _string(resize, "coordinate_transformation_mode", "half_pixel")),
    ]
    name = f"{resize.name}.{UPSAMPLE_ARGMAX.name}"
    labels = ir.Value(name=f"{name}.0", type=cast.outputs[0].type)
    return ir.Node(
        CUSTOM_DOMAIN, UPSAMPLE_ARGMAX.name, [resize.inputs[0]], attributes, outputs=[labels], name=name
    )


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _string(node: ir.Node, name: str, default: str) -> str:
    return node.attributes[name].as_string() if name in node.attributes else default
