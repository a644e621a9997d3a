"""Everything that can be computed at export, computed."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnxsim
from onnxscript import optimizer

from roadseg.runtime import ExportError

LARGE_BYTES = 2**16
"""A weight from this size on takes no part: the form of a graph does not depend on it, and onnxsim
and shape inference would copy it several times."""


class Simplify:
    """Fold constants and shapes, and drop what nothing uses.

    Handles: CastLike and Expand chains around a convolution without bias (onnxscript's folder), then everything
    that onnxsim knows but what changes a large weight. Shapes of all values are known afterwards.

    Leaves: batch norms, see `FoldBatchNorm`; names of weights, which onnxsim invents, see `Canonicalize`.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        before = len(model.graph)
        weights = set_aside(model.graph)
        # CastLike folds once the type of what it looks at is known.
        typed = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True))
        optimizer.fold_constants(typed)
        try:
            proto, checked = onnxsim.simplify(ir.to_proto(typed))
        except Exception as error:  # RuntimeError and others from C++
            raise ExportError(f"onnxsim could not simplify the model: {error}") from error
        if not checked:
            raise ExportError(
                "onnxsim changed what the model computes; this is a bug of onnxsim, please report it."
            )
        simplified = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
        put_back(simplified.graph, weights)
        # What reads large weights alone, e.g. the transpose of a linear layer's.
        largest = max((tensor.nbytes for tensor in weights.values()), default=0)
        optimizer.fold_constants(simplified, input_size_limit=largest, output_size_limit=largest)
        return simplified, len(simplified.graph) != before


def set_aside(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """Turn large initializers into inputs; their values by name."""
    values = [v for v in graph.initializers.values() if v.const_value and v.const_value.nbytes >= LARGE_BYTES]
    weights: dict[str, ir.TensorProtocol] = {}
    for value in values:
        assert value.name is not None
        assert value.const_value is not None
        weights[value.name] = value.const_value
        value.const_value = None
        del graph.initializers[value.name]
        graph.inputs.append(value)
    return weights


def put_back(graph: ir.Graph, weights: dict[str, ir.TensorProtocol]) -> None:
    """Undo `set_aside`, in whatever became of the graph."""
    for value in list(graph.inputs):
        if value.name in weights:
            graph.inputs.remove(value)
            value.const_value = weights[value.name]
            graph.register_initializer(value)
