"""Names that say where in the network a node comes from."""

from __future__ import annotations

import ast

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes the modules around a node, outermost first, the operation last."""


class NameByModule:
    """Name every node after the path of the module that computes it: `/ppm/conv1/conv/0/Conv#17`.

    Handles: nodes that carry torch's `name_scopes`, which all nodes of a fresh export do. The number keeps the
    names of nodes and values apart; `Canonicalize` gives the final ones, numbered in canonical order.

    Leaves: nodes without it, subgraphs, and the names of graph inputs, outputs and weights.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        """Path of the network inside the module that was traced; its own paths start there."""

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        changed = False
        for count, node in enumerate(model.graph):
            if SCOPES not in node.metadata_props:
                continue
            node.name = f"{self._scope(ast.literal_eval(node.metadata_props[SCOPES]))}/{node.op_type}#{count}"
            for index, output in enumerate(node.outputs):
                if not output.is_graph_output():
                    output.name = f"{node.name}.{index}"
            changed = True
        return model, changed

    def _scope(self, scopes: list[str]) -> str:
        path = scopes[-2] if len(scopes) > 1 else ""
        if path == self.root or path.startswith(self.root + "."):
            path = path[len(self.root) + 1 :]
        return "/" + path.replace(".", "/") if path else ""
