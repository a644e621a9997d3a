"""Everything that can be computed at export, computed."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnxsim
from onnxscript import optimizer

from roadseg.runtime import ExportError


class Simplify:
    """Fold constants and shapes, fuse batch norms into convolutions, drop what nothing uses.

    Handles: CastLike and Expand chains around a convolution without bias (onnxscript's folder), then everything
    that onnxsim knows. Shapes of all values are known afterwards.

    Leaves: batch norms behind grouped transposed convolutions, matrix products and concatenations, see
    `FoldBatchNorm`; names of weights, which onnxsim invents, see `Canonicalize`.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        before = len(model.graph)
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
        return simplified, len(simplified.graph) != before
