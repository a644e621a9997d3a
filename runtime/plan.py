"""Plans: what a TensorRT engine file is, and whether this machine may open it."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Literal

from .artifacts import Manifest, read_manifest
from .cuda import Gpu, find_gpu
from .errors import EngineError
from .optional import require
from .plugins.v3 import provide

FlavourName = Literal["tensorrt", "rtx"]
Precision = Literal["fp32", "fp16", "int8"]
PluginRoad = Literal["plugin-aot", "plugin-v3"]
"""Kinds of plugins: of an ahead-of-time one all is in the plan, a Python one is needed again to open it."""
Dialect = Literal["typed", "legacy"]
"""Whether precision came from the graph or from flags of the builder."""


@dataclasses.dataclass(frozen=True)
class Flavour:
    """One of the two libraries that build and run plans; their Python interfaces are alike."""

    name: FlavourName
    """Name in manifests and on the command line."""
    module: str
    """Name to import."""
    title: str
    """Name to print."""

    @property
    def importable(self) -> bool:
        """Whether the library is installed; it may still fail to load."""
        return importlib.util.find_spec(self.module) is not None


FLAVOURS: dict[FlavourName, Flavour] = {
    "tensorrt": Flavour("tensorrt", "tensorrt", "TensorRT"),
    "rtx": Flavour("rtx", "tensorrt_rtx", "TensorRT-RTX"),
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a plan."""

    name: str
    dtype: str
    """numpy's name, e.g. "uint8"."""
    shape: tuple[int, ...]
    """-1 where the number of frames is open."""


@dataclasses.dataclass(frozen=True)
class OpRoad:
    """How a custom operator came into a plan."""

    op: str
    """ONNX op type."""
    road: PluginRoad | Literal["function"]
    """"function" is its definition in standard operators."""


@dataclasses.dataclass(frozen=True)
class PlanDetails:
    """What a plan's manifest says beyond what every manifest says."""

    flavour: FlavourName
    version: str
    """Of the library that built it; no other opens it."""
    compute_capabilities: tuple[str, ...]
    """GPUs it runs on, e.g. ("8.6",)."""
    gpu: str
    """Name of the GPU it was built on; empty if it was built ahead of time."""
    driver: str
    """Newest CUDA that GPU's driver serves, e.g. "12.6"; empty if it was built ahead of time."""
    precision: Precision
    dialect: Dialect
    batch: int
    """Frames in one call, at most."""
    input: TensorInfo
    output: TensorInfo
    workspace_bytes: int | None
    """Limit of scratch memory while a layer runs; None is all that the GPU has."""
    provenance: dict[str, str]
    """What the ONNX model says it was made from."""
    roads: dict[str, OpRoad] = dataclasses.field(default_factory=dict)
    """Of the model's custom operators, by node."""


def read_plan(path: Path) -> tuple[Manifest, PlanDetails]:
    """What a plan is, by its manifest. Needs neither GPU nor TensorRT.

    Raises:
        ArtifactError: if the plan or its manifest is missing, edited, or not made for the other.
    """
    manifest = read_manifest(path, "plan")
    return manifest, manifest.details_as(PlanDetails)


def check_plan(path: Path, flavour: FlavourName) -> tuple[Manifest, PlanDetails]:
    """What a plan is, once it is certain that `flavour` can open it on this machine. Nothing is deserialised.

    Raises:
        ArtifactError: as `read_plan`.
        EngineError: if there is no GPU, another GPU, another library or another version of it, or a plugin that
            the plan needs cannot be had.
        MissingDependencyError: if the library is not installed.
    """
    manifest, details = read_plan(path)
    _check_flavour(path, details, flavour)
    _check_gpu(path, details, _require_gpu(path, details))
    _check_version(path, details)
    _provide_plugins(path, details)
    return manifest, details


def _check_flavour(path: Path, details: PlanDetails, flavour: FlavourName) -> None:
    if details.flavour != flavour:
        made_by, opened_with = FLAVOURS[details.flavour], FLAVOURS[flavour]
        raise EngineError(
            f"{path} is a {made_by.title} plan and cannot be opened with {opened_with.title}. "
            f"Open it with the backend {made_by.module}."
        )


def _require_gpu(path: Path, details: PlanDetails) -> Gpu:
    try:
        return find_gpu()
    except EngineError as error:
        raise EngineError(
            f"{error}, so {path} can be checked here but not run: it needs an NVIDIA GPU of compute capability "
            f"{' or '.join(details.compute_capabilities)}."
        ) from error


def _check_gpu(path: Path, details: PlanDetails, gpu: Gpu) -> None:
    if gpu.compute_capability not in details.compute_capabilities:
        raise EngineError(
            f"{path} was built for GPUs of compute capability {' or '.join(details.compute_capabilities)}, this "
            f"machine's {gpu.name} has {gpu.compute_capability}. {_build_again(path, details.flavour, gpu)}"
        )


def _check_version(path: Path, details: PlanDetails) -> None:
    flavour = FLAVOURS[details.flavour]
    installed = require(flavour.module, f"opening {path}").__version__
    if installed != details.version:
        raise EngineError(
            f"{path} was built by {flavour.title} {details.version}, which alone can open it; this machine has "
            f"{installed}. {_build_again(path, details.flavour)}"
        )


def _provide_plugins(path: Path, details: PlanDetails) -> None:
    ops = {road.op for road in details.roads.values() if road.road == "plugin-v3"}
    try:
        provide(require(FLAVOURS[details.flavour].module, f"opening {path}"), ops)
    except EngineError as error:
        raise EngineError(
            f"{path} cannot be opened: {error} Or build it again without plugins: roadseg build MODEL.onnx "
            f"--flavour {details.flavour} --plugins never --out {path}"
        ) from error


def _build_again(path: Path, flavour: FlavourName, gpu: Gpu | None = None) -> str:
    target = f" --compute-capability {gpu.compute_capability}" if gpu and flavour == "rtx" else ""
    return (
        f"Build it again on this machine with: roadseg build MODEL.onnx --flavour {flavour}{target} --out {path}"
    )
