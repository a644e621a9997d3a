"""Adaptive average pooling in operations that every runtime has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch
from onnxscript import values

from roadseg.runtime import ExportError
from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from .graph import constant, node, replace, static_size

OP_TYPE = "AdaptiveAveragePool"


class LowerAdaptivePool:
    """Replace every `roadseg::AdaptiveAveragePool` by standard operations.

    torch's exporter would unroll `F.adaptive_avg_pool2d` into hundreds of Gather and Add nodes where the bins do
    not divide the map. `TRANSLATION` makes it write one node instead, and this pass picks the cheapest exact form:

    - one bin: ReduceMean.
    - bins that divide rows and columns: AveragePool with that stride.
    - any other bins: `A_rows @ x @ A_columns`, two MatMuls with constant matrices of 1/window entries.

    Leaves: adaptive pooling over one or three axes and adaptive max pooling, which go to torch's exporter as they
    are, and maps without a fixed size, which are refused.
    """

    def __call__(self, model: ir.Model) -> tuple[ir.Model, bool]:
        pools = [n for n in model.graph if (n.domain, n.op_type) == (CUSTOM_DOMAIN, OP_TYPE)]
        for pool in pools:
            replace(pool, self._lower(pool))
        return model, bool(pools)

    def _lower(self, pool: ir.Node) -> list[ir.Node]:
        x = pool.inputs[0]
        size = static_size(x)
        if x is None or size is None:
            raise ExportError(
                f"{pool.name} pools a map whose size changes from call to call into a fixed number of bins; "
                "export at a fixed image size."
            )
        bins = tuple(pool.attributes["output_size"].as_ints())
        if bins == (1, 1):
            return [_mean(pool, x)]
        if all(s % b == 0 for s, b in zip(size, bins, strict=True)):
            return [_strided(pool, x, [s // b for s, b in zip(size, bins, strict=True)])]
        return _matmuls(pool, x, size, bins)


def _mean(pool: ir.Node, x: ir.Value) -> ir.Node:
    return node("ReduceMean", [x, _constant(pool, "axes", np.array([-2, -1]))], pool, "mean", keepdims=1)


def _strided(pool: ir.Node, x: ir.Value, window: list[int]) -> ir.Node:
    return node("AveragePool", [x], pool, "strided", kernel_shape=window, strides=window)


def _matmuls(pool: ir.Node, x: ir.Value, size: tuple[int, int], bins: tuple[int, ...]) -> list[ir.Node]:
    dtype = ir.DataType.FLOAT if x.dtype is None else x.dtype
    rows, columns = (pool_matrix(s, b).astype(dtype.numpy()) for s, b in zip(size, bins, strict=True))
    left = node("MatMul", [_constant(pool, "rows", rows), x], pool, "by_rows")
    right = node("MatMul", [left.outputs[0], _constant(pool, "columns", columns.T)], pool, "by_columns")
    return [left, right]


def _constant(pool: ir.Node, role: str, array: npt.NDArray[Any]) -> ir.Value:
    assert pool.graph is not None
    return constant(pool.graph, f"{pool.name}.{role}", array)


def pool_matrix(size: int, bins: int) -> npt.NDArray[np.float64]:
    """`(bins, size)` whose product with a column is its adaptive average pool.

    Window i runs from floor(i * size / bins) to ceil((i + 1) * size / bins), as in PyTorch's
    aten/src/ATen/native/AdaptivePooling.h.

    >>> pool_matrix(3, 2)
    array([[0.5, 0.5, 0. ],
           [0. , 0.5, 0.5]])
    """
    matrix = np.zeros((bins, size))
    for i in range(bins):
        window = slice(i * size // bins, -(-(i + 1) * size // bins))
        matrix[i, window] = 1 / (window.stop - window.start)
    return matrix


def _schema() -> onnx.defs.OpSchema:
    schema = onnx.defs.OpSchema
    return schema(
        OP_TYPE,
        CUSTOM_DOMAIN,
        1,
        inputs=[schema.FormalParameter("x", "T")],
        outputs=[schema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(double)"], "")],
        attributes=[schema.Attribute("output_size", schema.AttrType.INTS)],
    )


_OP = values.Op(values.Opset(CUSTOM_DOMAIN, 1), OP_TYPE, _schema())


def _adaptive_avg_pool2d(x: Any, output_size: Sequence[int]) -> Any:
    return _OP(x, output_size=list(output_size))


TRANSLATION: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d
}
"""For `torch.onnx.export(custom_translation_table=...)`."""
