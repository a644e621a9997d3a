"""Plugins of TensorRT 10.0 to 10.8: written in Python, and needed again wherever their plan is opened.

Everything that a kernel needs is in the plan, so there is one class for all operators, and who opens a plan needs
neither their definitions nor a compiler.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..cuda import LoadedKernel, load_kernel
from ..errors import EngineError
from .offers import ATTRIBUTE, NAMESPACE, VERSION, check_shapes, check_types, data_type, offered
from .package import Kernel


def provide(library: Any, ops: Iterable[str]) -> None:
    """Register plugins with TensorRT, so that a model with these operators can be parsed and its plan opened.

    Args:
        library: TensorRT.
        ops: ONNX op types.

    Raises:
        EngineError: if this TensorRT cannot have one of them; with what to do.
    """
    for op in sorted(set(ops)):
        if why := obstacle(library):
            raise EngineError(f"the plugin {NAMESPACE}::{op} cannot be had here: {why}.")
        register(library, op)
        if library.get_plugin_registry().get_creator(op, VERSION, NAMESPACE) is None:
            raise EngineError(f"TensorRT {library.__version__} does not take the plugin {NAMESPACE}::{op}.")


def obstacle(library: Any) -> str:
    """Why this TensorRT can have no such plugins, without a full stop; "" if it can."""
    if not hasattr(library, "IPluginV3"):
        return f"TensorRT {library.__version__} takes no plugins that are written in Python; 10.0 and later do"
    field = library.PluginField(ATTRIBUTE, b"\1\2", library.PluginFieldType.CHAR)
    if field.data.tobytes() != b"\1\2":
        return (
            f"the Python bindings of TensorRT {library.__version__} cannot read their own data under numpy "
            f"{np.__version__}; they were made for numpy 1: pip install 'numpy<2'"
        )
    return ""


@functools.cache
def register(library: Any, op: str) -> Any:
    """The creator of an operator's plugins, which is registered for the life of the process."""
    creator = creator_class(library)(op)
    library.get_plugin_registry().register_creator(creator, NAMESPACE)
    return creator


@functools.cache
def creator_class(library: Any) -> Any:
    """What TensorRT asks for plugins of one operator."""

    class Creator(library.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self, op: str) -> None:
            library.IPluginCreatorV3One.__init__(self)  # TensorRT crashes if a subclass leaves this out
            self.name = op
            self.plugin_version = VERSION
            self.plugin_namespace = NAMESPACE
            # Kept, because a collection only points into its fields.
            self._field = library.PluginField(ATTRIBUTE, np.array([], np.int32), library.PluginFieldType.INT32)
            self.field_names = library.PluginFieldCollection([self._field])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:  # noqa: ARG002
            """From a node's attributes as an engine is built, from the plan as it is opened."""
            data = next(field.data for field in fields if field.name == ATTRIBUTE)
            building = phase == library.TensorRTPhase.BUILD
            kernel = offered(int(data[0])) if building else Kernel.from_bytes(data.tobytes())
            return plugin_class(library)(kernel)

    return Creator


@functools.cache
def plugin_class(library: Any) -> Any:
    """One call of an operator inside an engine."""
    bases = (library.IPluginV3, library.IPluginV3OneCore, library.IPluginV3OneBuild, library.IPluginV3OneRuntime)

    class Plugin(*bases):  # type: ignore[misc]
        def __init__(self, kernel: Kernel) -> None:
            for base in bases:
                base.__init__(self)
            self.kernel = kernel
            self.launch = kernel.launch
            self.plugin_name = kernel.launch.op
            self.plugin_version = VERSION
            self.plugin_namespace = NAMESPACE
            self.num_outputs = 1

        @functools.cached_property
        def loaded(self) -> LoadedKernel:
            """The kernel on this thread's GPU."""
            return load_kernel(self.kernel.ptx_text, self.launch.entry, self.launch.shared_bytes)

        def get_capability_interface(self, type: Any) -> Any:  # noqa: A002, ARG002
            return self

        def clone(self) -> Any:
            return Plugin(self.kernel)

        def get_output_data_types(self, input_types: list[Any]) -> list[Any]:
            check_types(library, self.kernel, input_types)
            return [data_type(library, self.launch.output.dtype)]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:  # noqa: ARG002
            shape = [builder.constant(length) for length in self.launch.output.shape]
            return [library.DimsExprs(shape)]

        def supports_format_combination(self, position: int, tensors: list[Any], inputs: int) -> bool:  # noqa: ARG002
            kinds = [*self.launch.inputs, self.launch.output]
            tensor = tensors[position].desc
            expected = data_type(library, kinds[position].dtype)
            return bool(tensor.format == library.TensorFormat.LINEAR and tensor.type == expected)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            """Nothing depends on what TensorRT chose."""

        def get_fields_to_serialize(self) -> Any:
            # Both are kept: a collection only points into its fields, and TensorRT reads it after this call.
            self._field = library.PluginField(ATTRIBUTE, self.kernel.to_bytes(), library.PluginFieldType.CHAR)
            self._fields = library.PluginFieldCollection([self._field])
            return self._fields

        def on_shape_change(self, inputs: list[Any], outputs: list[Any]) -> None:  # noqa: ARG002
            check_shapes(self.kernel, [tuple(tensor.dims) for tensor in inputs])

        def set_tactic(self, tactic: int) -> None:
            """There is one."""

        def attach_to_context(self, resources: Any) -> Any:  # noqa: ARG002
            attached = self.clone()
            attached.loaded  # noqa: B018  # now, because nothing may be loaded while a CUDA graph is captured
            return attached

        def enqueue(
            self,
            input_desc: Any,  # noqa: ARG002
            output_desc: Any,  # noqa: ARG002
            inputs: list[int],
            outputs: list[int],
            workspace: int,  # noqa: ARG002
            stream: int,
        ) -> None:
            integers = map(ctypes.c_int32, self.launch.integers)
            arguments: list[ctypes.c_void_p | ctypes.c_int32] = [
                *map(ctypes.c_void_p, inputs),
                *integers,
                *map(ctypes.c_void_p, outputs),
            ]
            self.loaded.launch(self.launch.grid, self.launch.threads, arguments, stream)

    return Plugin
