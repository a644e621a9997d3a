"""Compiled kernels of a model's custom operators, as a file beside the model.

Who builds an engine needs neither the compiler nor the operators' definitions: a package says of every call which
PTX computes it, and how that is launched.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from ..artifacts import Manifest, read_bytes, read_manifest, sha256_bytes, write_with_manifest
from ..errors import ArtifactError
from ..spec import ModelSpec

OPTION = "--compute-capability {}"
"""Of `roadseg kernels`, once for each kind of GPU."""


@dataclasses.dataclass(frozen=True)
class TensorType:
    """Of an input or the answer of a call."""

    dtype: str
    """numpy's name, e.g. "float16"."""
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Launch:
    """How one call of an operator is launched on one kind of GPU."""

    op: str
    """ONNX op type."""
    inputs: tuple[TensorType, ...]
    output: TensorType
    """What the kernel writes."""
    cast_to: str
    """numpy's name of the type that the operator answers with: another where TensorRT gives no plugin that one."""
    entry: str
    """Name of the kernel in its PTX."""
    ptx_sha256: str
    grid: tuple[int, int, int]
    """Blocks along x, y and z."""
    threads: int
    """Per block, all along x."""
    shared_bytes: int
    """Dynamic shared memory per block."""
    integers: tuple[int, ...]
    """32 bits each. The kernel takes pointers to its inputs, these, and a pointer to its output, in this order."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A launch together with its code: all that is needed to compute one call."""

    launch: Launch
    ptx: bytes
    """Compressed by zlib."""

    @property
    def ptx_text(self) -> str:
        """The PTX as compiled."""
        return zlib.decompress(self.ptx).decode()

    def to_bytes(self) -> bytes:
        """The same bytes for the same kernel; `from_bytes` reads them."""
        return msgspec.msgpack.encode(self, order="deterministic")

    @classmethod
    def from_bytes(cls, data: bytes) -> Kernel:
        """What `to_bytes` wrote.

        Raises:
            ArtifactError: if it is something else, or its PTX is not the one it was written with.
        """
        try:
            kernel = msgspec.msgpack.decode(data, type=cls)
            intact = sha256_bytes(zlib.decompress(kernel.ptx)) == kernel.launch.ptx_sha256
        except (msgspec.MsgspecError, zlib.error) as error:
            raise ArtifactError(f"this is not a kernel that roadseg compiled ({error}).") from error
        if not intact:
            raise ArtifactError(
                f"the code of the kernel {kernel.launch.entry} is not the one it was written with."
            )
        return kernel


@dataclasses.dataclass(frozen=True)
class Package:
    """The kernels of one model, for one or several kinds of GPU. Code that several calls share is held once."""

    launches: dict[str, dict[str, Launch]]
    """By node, then by compute capability, e.g. "8.7"."""
    ptx: dict[str, bytes]
    """Compressed code by its SHA-256."""
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    """Nodes without a kernel, and why."""

    @classmethod
    def of(cls, kernels: Iterable[tuple[str, str, Kernel]], left: Mapping[str, str]) -> Package:
        """A package of kernels, each with its node and compute capability."""
        launches: dict[str, dict[str, Launch]] = {}
        ptx = {}
        for node, compute_capability, kernel in kernels:
            launches.setdefault(node, {})[compute_capability] = kernel.launch
            ptx[kernel.launch.ptx_sha256] = kernel.ptx
        return cls(launches, ptx, dict(left))

    def kernels(self, compute_capability: str) -> dict[str, Kernel]:
        """Kernels for one kind of GPU, by node."""
        return {
            node: Kernel(by_gpu[compute_capability], self.ptx[by_gpu[compute_capability].ptx_sha256])
            for node, by_gpu in self.launches.items()
            if compute_capability in by_gpu
        }

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """GPUs that at least one call has a kernel for."""
        found = {name for by_gpu in self.launches.values() for name in by_gpu}
        return tuple(sorted(found, key=lambda name: tuple(map(int, name.split(".")))))


@dataclasses.dataclass(frozen=True)
class PackageDetails:
    """What a package's manifest says beyond what every manifest says."""

    ops: dict[str, str]
    """Op type by node."""
    left: dict[str, str]
    """Nodes without a kernel, and why."""
    compute_capabilities: tuple[str, ...]


def package_path(model: Path) -> Path:
    """Where the package of an ONNX model stands unless somebody says otherwise."""
    return model.with_suffix(".kernels")


def write_package(path: Path, package: Package, spec: ModelSpec, onnx_sha256: str, triton: str) -> Manifest:
    """Write a package with its manifest.

    Args:
        path: the file.
        package: what goes into it.
        spec: of the model.
        onnx_sha256: of the model's file.
        triton: version of the compiler.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    ops = {node: next(iter(by_gpu.values())).op for node, by_gpu in package.launches.items()}
    details = msgspec.to_builtins(PackageDetails(ops, package.left, package.compute_capabilities))
    manifest = Manifest("kernels", "", spec, {"onnx": onnx_sha256}, details, {"triton": triton})
    return write_with_manifest(path, msgspec.msgpack.encode(package, order="deterministic"), manifest)


def read_package(path: Path, onnx_sha256: str) -> Package:
    """The kernels of a model.

    Raises:
        ArtifactError: if the file or its manifest is missing, damaged, or of another model.
    """
    manifest = read_manifest(path, "kernels")
    if manifest.inputs.get("onnx") != onnx_sha256:
        gpus = " ".join(map(OPTION.format, manifest.details_as(PackageDetails).compute_capabilities))
        raise ArtifactError(
            f"{path} holds the kernels of another model. Make those of this one with: "
            f"roadseg kernels MODEL.onnx {gpus} --out {path}"
        )
    try:
        return msgspec.msgpack.decode(read_bytes(path), type=Package)
    except msgspec.MsgspecError as error:
        raise ArtifactError(
            f"{path} holds no kernels that this roadseg reads ({error}). Make it again."
        ) from error


def compress(ptx: str) -> bytes:
    """PTX as packages hold it."""
    return zlib.compress(ptx.encode(), 9)
