"""Kernels in Triton's language: run on a GPU or in the interpreter, or described for a compiler."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from roadseg.runtime import require

Launch = Callable[..., Tensor]
"""From a launchable kernel and the operator's arguments to its answer: allocates it, and calls
`kernel[grid](*inputs, *integers, answer, **constants)` once. `kernel.architecture` is ten times the compute
capability of the GPU."""
ANY_ARCHITECTURE = 80
"""What launches are told where there is no GPU: in the interpreter."""
LARGE = range(90, 120)
"""Architectures whose multiprocessors have more than twice the shared memory of others (228 KB)."""
TENSOR_CORES = range(80, 1000)
"""Architectures whose tensor cores Triton uses."""
OPTIONS = ("num_warps", "num_stages")
"""What a launch may say to Triton's compiler."""
POINTERS = {
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
"""Triton's name for a pointer to elements of a type."""


@dataclasses.dataclass(frozen=True)
class Call:
    """How a kernel is launched for arguments of certain shapes and types."""

    grid: tuple[int, int, int]
    """Programs along each axis."""
    signature: dict[str, str]
    """Triton's type of every parameter, in order."""
    integers: dict[str, int]
    """Values of the integers that are passed at run time."""
    constants: dict[str, Any]
    """Values of what is compiled into the kernel."""
    options: dict[str, int]
    answer: Tensor
    """On the meta device."""


class Kernel:
    """One GPU kernel that computes an operator.

    Its function takes input tensors, integers, the answer, and whatever else as `tl.constexpr`, in this order: a
    TensorRT plugin that carries its PTX with it has no other arguments. `tl` is given to its module when the
    kernel is first needed, so that importing an operator imports no Triton.
    """

    def __init__(self, function: Callable[..., None], launch: Launch) -> None:
        self.function = function
        self._launch = launch

    @functools.cached_property
    def jit(self) -> Any:
        """What Triton launches; in a process with TRITON_INTERPRET=1 the interpreter does."""
        triton = require("triton", f"running {self.function.__name__} on a GPU")
        self.function.__globals__["tl"] = triton.language
        return triton.jit(self.function)

    def __call__(self, *args: Any) -> Tensor:
        """Compute the operator, arguments as in PyTorch."""
        return self._launch(Unfused(self.jit, architecture_of(args)), *args)

    def call_for(self, *args: Any, architecture: int = ANY_ARCHITECTURE) -> Call:
        """How the kernel would be launched; tensors may be on the meta device. Nothing is run.

        Args:
            args: the operator's.
            architecture: of the GPU, ten times its compute capability.
        """
        recorder = Recorder(architecture)
        answer = self._launch(recorder, *args)
        values = inspect.signature(self.function).bind(*recorder.args, **recorder.constants).arguments
        passed = dict(zip(values, recorder.args, strict=False))
        return Call(
            grid=three(*recorder.grid),
            signature={name: type_of(passed[name]) if name in passed else "constexpr" for name in values},
            integers={name: value for name, value in passed.items() if isinstance(value, int)},
            constants={name: value for name, value in values.items() if name not in passed},
            options=recorder.options,
            answer=answer,
        )


def answering(call: Call, dtype: torch.dtype) -> Call:
    """The same launch with an answer of another type: what a kernel stores is converted to that of the place."""
    name = [name for name, kind in call.signature.items() if kind != "constexpr"][-1]
    return dataclasses.replace(
        call, signature=call.signature | {name: POINTERS[dtype]}, answer=call.answer.to(dtype)
    )


class Unfused:
    """A kernel whose products and sums stay apart, so that they round as in PyTorch and ONNX Runtime."""

    def __init__(self, kernel: Any, architecture: int) -> None:
        self.kernel = kernel
        self.architecture = architecture
        """Of the GPU that runs it, for launches whose blocks depend on it."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return functools.partial(self.kernel[grid], enable_fp_fusion=False)


class Recorder:
    """Stands in for a kernel and notes how it is launched."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.grid: tuple[int, ...] = ()
        self.args: tuple[Any, ...] = ()
        self.constants: dict[str, Any] = {}
        self.options: dict[str, int] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.grid = grid
        return self._launch

    def _launch(self, *args: Any, **named: Any) -> None:
        self.args = args
        self.options = {name: named.pop(name) for name in OPTIONS if name in named}
        self.constants = named


def architecture_of(args: tuple[Any, ...]) -> int:
    """Ten times the compute capability of the GPU that the tensors among the arguments are on."""
    device = next(x.device for x in args if isinstance(x, Tensor))
    if device.type != "cuda":
        return ANY_ARCHITECTURE
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def power_of_two(least: int) -> int:
    """The smallest that is not less: what Triton's blocks are as long as."""
    return 1 << (least - 1).bit_length()


def three(x: int, y: int = 1, z: int = 1) -> tuple[int, int, int]:
    """A grid of up to three axes as one of three."""
    return x, y, z


def type_of(value: Any) -> str:
    """Triton's type of an argument."""
    return POINTERS[value.dtype] if isinstance(value, Tensor) else "i32"
