"""What plugins of every kind have in common: their names, their types, and the kernels that a build has at hand.

A parser hands a plugin nothing but the node's attributes, so the one attribute that we give it, an array of one
number, is the number of a kernel that was offered before. Nothing else survives everywhere: the bindings of
TensorRT 10.3 and 10.13 read every element of an array as its first one under numpy 2, and those of 10.13 and 10.16
refuse a plain integer under numpy 2.4.
"""

from __future__ import annotations

from typing import Any

from ..errors import BuildError
from ..onnxfile import CUSTOM_DOMAIN
from .package import Kernel

NAMESPACE = CUSTOM_DOMAIN
"""Of all our plugins."""
VERSION = "1"
"""Of all our plugins; that of ahead-of-time plugins cannot be another."""
ATTRIBUTE = "kernel"
"""Of a node that becomes a plugin, and the one field of a plugin."""
DATA_TYPES = {"float16": "HALF", "float32": "FLOAT", "int32": "INT32", "int64": "INT64"}
"""What a plugin may take and give, numpy's name to TensorRT's: neither UINT8 nor BOOL (NvInferRuntime.h,
IPluginV3OneBuild::getOutputDataTypes)."""
SHARED_BYTES = 48 * 1024
"""Shared memory that a block of threads gets on every GPU. More has to be asked for before the launch (CUDA
programming guide, "Shared Memory"), and nothing says that TensorRT does so for an ahead-of-time plugin."""

_offered: dict[int, Kernel] = {}


def offer(kernel: Kernel) -> int:
    """The number under which plugins find a kernel in this process, the same for the same kernel."""
    number = int(kernel.launch.ptx_sha256[:6], 16)
    while _offered.setdefault(number, kernel) != kernel:
        number += 1
    return number


def offered(number: int) -> Kernel:
    """The kernel that was offered under a number.

    Raises:
        BuildError: if there is none.
    """
    if number not in _offered:
        raise BuildError(f"no kernel {number} was offered in this process. Build with `roadseg build`.")
    return _offered[number]


def data_type(library: Any, dtype: str) -> Any:
    """TensorRT's own of numpy's name of a type."""
    return getattr(library.DataType, DATA_TYPES[dtype])


def check_types(library: Any, kernel: Kernel, found: list[Any]) -> None:
    """Raise BuildError unless a plugin's inputs have the types that its kernel was compiled for."""
    expected = [data_type(library, kind.dtype) for kind in kernel.launch.inputs]
    if list(found) != expected:
        raise BuildError(
            f"the kernel {kernel.launch.entry} is compiled for {names(expected)}; it gets {names(found)}."
        )


def check_shapes(kernel: Kernel, found: list[tuple[int, ...]]) -> None:
    """Raise BuildError unless a plugin's inputs have the shapes that its kernel is launched for."""
    expected = [kind.shape for kind in kernel.launch.inputs]
    if found != expected:
        raise BuildError(
            f"the kernel {kernel.launch.entry} is launched for inputs of {expected}; it gets {found}."
        )


def names(types: list[Any]) -> str:
    """Types of TensorRT in words."""
    return ", ".join(kind.name for kind in types)
