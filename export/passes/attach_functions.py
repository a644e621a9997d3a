"""The bodies of custom operators, beside the graph that uses them."""

from __future__ import annotations

import onnx_ir as ir

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from ..ops import OPS


class AttachFunctions:
    """Give the model a local function for every operator of `export.ops` in its graph.

    A runtime that knows the operator takes it; every other one computes the function, which is made of standard
    operators of the model's own opset.

    Leaves: operators of other domains.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        used = {node.op_type for node in model.graph if node.domain == CUSTOM_DOMAIN} & OPS.keys()
        for name in sorted(used):
            function = ir.serde.deserialize_function(OPS[name].function(model.opset_imports[""]))
            model.functions[function.identifier()] = function
        return model, bool(used)
