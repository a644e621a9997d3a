"""Ahead-of-time plugins of TensorRT 10.9 and later: their code becomes part of the plan, which then needs nothing.

TensorRT's package `tensorrt.plugin` makes the plugins; what they take it reads from the signatures of functions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from roadseg.runtime import MissingDependencyError, require
from roadseg.runtime.plugins import ATTRIBUTE, NAMESPACE, check_shapes, check_types, data_type, offered

ARRAY = np.ndarray[Any, np.dtype[np.int32]]
"""Type of the one attribute."""
THROUGH_NAME = inspect.Parameter.POSITIONAL_OR_KEYWORD


def provide(library: Any, ops: Mapping[str, int]) -> None:
    """Register plugins with TensorRT, so that a model with these operators can be parsed.

    Args:
        library: TensorRT.
        ops: how many inputs each has, by ONNX op type.

    Raises:
        MissingDependencyError: if TensorRT's Python package lacks what makes plugins.
    """
    plugin = require("tensorrt.plugin", "building an engine with plugins")
    for op, inputs in sorted(ops.items()):
        register(library, plugin, op, inputs)


def obstacle(library: Any) -> str:
    """Why this TensorRT can have no such plugins, without a full stop; "" if it can."""
    try:
        require("tensorrt.plugin", "building an engine with plugins")
    except MissingDependencyError as error:
        return str(error).rstrip(".")
    if not hasattr(library, "QuickPluginCreationRequest"):
        return f"the Python bindings of TensorRT {library.__version__} make no ahead-of-time plugins"
    return ""


@functools.cache
def register(library: Any, plugin: Any, op: str, inputs: int) -> None:
    """Register an operator for the life of the process; twice is an error for TensorRT."""
    names = [f"input_{i}" for i in range(inputs)]
    name = f"{NAMESPACE}::{op}"
    plugin.register(name)(with_signature(describe(library, plugin), described(plugin, names)))
    plugin.aot_impl(name)(with_signature(implement(library, plugin), implemented(plugin, names)))


def with_signature(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """A function that says of itself that it takes what `signature` says."""
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def described(plugin: Any, names: list[str]) -> inspect.Signature:
    """Of the function that describes a plugin: inputs, the attribute, and one output."""
    inputs = [inspect.Parameter(name, THROUGH_NAME, annotation=plugin.TensorDesc) for name in names]
    attribute = inspect.Parameter(ATTRIBUTE, THROUGH_NAME, annotation=ARRAY)
    return inspect.Signature([*inputs, attribute], return_annotation=plugin.TensorDesc)


def implemented(plugin: Any, names: list[str]) -> inspect.Signature:
    """Of the function that gives a plugin's code and how it is launched."""
    parameters = [inspect.Parameter(name, THROUGH_NAME) for name in (*names, ATTRIBUTE, "outputs", "tactic")]
    returned = tuple[str, str, plugin.KernelLaunchParams, plugin.SymIntExprs]
    return inspect.Signature(parameters, return_annotation=returned)


def describe(library: Any, plugin: Any) -> Callable[..., Any]:
    """The function that says what a plugin answers with."""

    def answer(*inputs: Any, kernel: Any) -> Any:
        wanted = offered(int(kernel[0]))
        check_types(library, wanted, [tensor.dtype for tensor in inputs])
        output = wanted.launch.output
        return plugin.from_shape_expr(output.shape, data_type(library, output.dtype))

    return answer


def implement(library: Any, plugin: Any) -> Callable[..., Any]:
    """The function that gives the name of a kernel, its PTX, how it is launched, and its integers."""

    def code(*arguments: Any) -> tuple[str, str, Any, Any]:
        *inputs, kernel, _, _ = arguments
        wanted = offered(int(kernel[0]))
        launch = wanted.launch
        check_types(library, wanted, [tensor.dtype for tensor in inputs])
        check_shapes(wanted, [tuple(tensor.shape) for tensor in inputs])
        x, y, z = launch.grid
        how = plugin.KernelLaunchParams(
            grid_x=x, grid_y=y, grid_z=z, block_x=launch.threads, shared_mem=launch.shared_bytes
        )
        integers = plugin.SymIntExprs.from_tuple(tuple(map(plugin.SymInt32, launch.integers)))
        return launch.entry, wanted.ptx_text, how, integers

    return code
