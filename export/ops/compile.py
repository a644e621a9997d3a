"""Kernels for GPUs that are not here: PTX in the version that a driver takes, and what it needs of the machine."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from roadseg.runtime import BuildError, UsageError, require
from roadseg.runtime.plugins import SHARED_BYTES

from .kernel import ANY_ARCHITECTURE, LARGE, Call, Kernel

PTX_VERSIONS = {
    **dict.fromkeys(("7.5", "8.0", "8.6", "8.7", "8.9", "9.0"), 85),
    **dict.fromkeys(("10.0", "12.0"), 87),
    "11.0": 90,
}
"""By compute capability, the PTX version, times ten, of the oldest CUDA release whose drivers we serve: 12.6
(JetPack 6.1), 12.8, and 13.0 (PTX ISA, "Release Notes"). A driver takes its own PTX version and all older ones."""
ALIGNMENT = 16
"""Bytes that every pointer is a multiple of, as TensorRT's and PyTorch's are."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A kernel for one compute capability and one set of shapes."""

    name: str
    """Of the function in the PTX."""
    ptx: str
    ptx_version: int
    """Times ten."""
    cubin: bytes
    call: Call
    threads: int
    """Per program."""
    shared_bytes: int
    """Of shared memory per program."""
    registers: int
    """Per thread."""
    spilled_bytes: int
    """Per thread, stored and loaded because registers ran out."""


def compile_kernel(kernel: Kernel, args: tuple[Any, ...], compute_capability: str) -> Compiled:
    """Compile for an operator's arguments, tensors on any device; the rest is as in `compile_call`.

    Blocks are as large as the GPU allows, unless they need more shared memory than every launch gets.
    """
    for architecture in architectures(compute_capability):
        compiled = compile_call(kernel, kernel.call_for(*args, architecture=architecture), compute_capability)
        if compiled.shared_bytes <= SHARED_BYTES:
            break
    return compiled


def architectures(compute_capability: str) -> tuple[int, ...]:
    """What launches are told for a GPU: its own number, or where that has much shared memory one with less."""
    own = int(compute_capability.replace(".", ""))
    return (own, ANY_ARCHITECTURE) if own in LARGE else (own,)


def compile_call(kernel: Kernel, call: Call, compute_capability: str) -> Compiled:
    """Compile without a GPU.

    Args:
        kernel: of an operator.
        call: how it is launched.
        compute_capability: of the GPU, e.g. "8.7".

    Raises:
        BuildError: if Triton or ptxas refuses the kernel.
        UsageError: if the GPU is not one of `PTX_VERSIONS`, or Triton is set to interpret kernels.
        MissingDependencyError: if Triton is not installed.
    """
    triton = require_compiler(compute_capability)
    ptx_version = PTX_VERSIONS[compute_capability]
    architecture = int(compute_capability.replace(".", ""))
    try:
        built = build(triton, kernel, call, architecture, ptx_version)
        if built.metadata.shared > SHARED_BYTES:
            # What has no room for the next block of its loads beside the present one waits for each.
            unstaged = dataclasses.replace(call, options=call.options | {"num_stages": 1})
            built = build(triton, kernel, unstaged, architecture, ptx_version)
    except Exception as error:  # CompilationError, RuntimeError and others from MLIR
        raise BuildError(
            f"Triton cannot compile {kernel.function.__name__} for compute capability {compute_capability}: "
            f"{error}"
        ) from error
    passed = sum(kind != "constexpr" for kind in call.signature.values())
    ptx = without_scratch(built.asm["ptx"], built.metadata.name, passed)
    registers, spilled = resources(triton, ptx, architecture)
    return Compiled(
        name=built.metadata.name,
        ptx=ptx,
        ptx_version=ptx_version,
        cubin=built.asm["cubin"],
        call=call,
        threads=32 * built.metadata.num_warps,
        shared_bytes=built.metadata.shared,
        registers=registers,
        spilled_bytes=spilled,
    )


def require_compiler(compute_capability: str) -> Any:
    """Triton, able to compile for that GPU; errors as `compile_kernel`, whatever the kernel."""
    triton = require("triton", "compiling a kernel")
    if triton.knobs.runtime.interpret:
        raise UsageError("TRITON_INTERPRET=1 makes Triton interpret kernels; unset it to compile them.")
    if compute_capability not in PTX_VERSIONS:
        raise UsageError(
            f"kernels are compiled for compute capability {', '.join(PTX_VERSIONS)}, not {compute_capability}."
        )
    return triton


def build(triton: Any, kernel: Kernel, call: Call, architecture: int, ptx_version: int) -> Any:
    """What Triton makes of a kernel, as it returns it."""
    with triton.knobs.compilation.scope():
        # Else the PTX has the path of our source in it, and lines that move.
        triton.knobs.compilation.disable_line_info = True
        return triton.compile(
            triton.compiler.ASTSource(kernel.jit, call.signature, call.constants, alignments(call)),
            target=triton.backends.compiler.GPUTarget("cuda", architecture, 32),
            options={"ptx_version": ptx_version, "enable_fp_fusion": False, **call.options},
        )


def without_scratch(ptx: str, name: str, passed: int) -> str:
    """The PTX without the pointers to scratch memory that Triton appends to a kernel's parameters.

    Who launches the kernel passes `passed` arguments; a driver would read the missing ones from beyond their end.

    Raises:
        BuildError: if the kernel uses one of them.
    """
    head, _, rest = ptx.partition(f".entry {name}(")
    parameters, _, body = rest.partition(")")
    extra = range(passed, parameters.count(".param"))
    if used := [i for i in extra if f"{name}_param_{i}]" in body]:
        raise BuildError(f"{name} needs scratch memory (parameter {used[0]}), which nobody gives it.")
    kept = ",".join(parameters.split(",")[:passed])
    return f"{head}.entry {name}({kept}\n){body}"


def alignments(call: Call) -> dict[tuple[int], list[list[Any]]]:
    """What Triton may count on: pointers, and integers that happen to be, are multiples of 16."""
    return {
        (i,): [["tt.divisibility", ALIGNMENT]]
        for i, (name, kind) in enumerate(call.signature.items())
        if kind.startswith("*") or (name in call.integers and call.integers[name] % ALIGNMENT == 0)
    }


def resources(triton: Any, ptx: str, architecture: int) -> tuple[int, int]:
    """Registers per thread, and bytes per thread that spill, as ptxas says."""
    ptxas = triton.backends.nvidia.compiler.get_ptxas(architecture).path
    (target,) = re.findall(r"^\.target (\w+)", ptx, re.M)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [
            ptxas,
            "-v",
            "--fmad=false",
            f"--gpu-name={target}",
            str(source),
            "-o",
            str(source.with_suffix(".cubin")),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
    (registers,) = re.findall(r"Used (\d+) registers", said)
    return int(registers), spilled
