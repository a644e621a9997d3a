"""TensorRT: engines for the GPU of this machine, in the dialect its version understands.

From 10.12 on precision is read from the graph (casts, Q/DQ nodes). Before that, as on JetPack 5 and 6, it is a
flag of the builder: the graph is FP32, or has Q/DQ nodes, and INT8 ranges may come from a calibration cache.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from roadseg.runtime import BuildError, EngineError, UsageError, read_manifest, require, write_atomically
from roadseg.runtime.artifacts import read_bytes
from roadseg.runtime.cuda import Gpu, find_gpu
from roadseg.runtime.plan import FLAVOURS, Precision
from roadseg.runtime.plan import Dialect as DialectName

from . import roads
from .model import Model
from .network import Network, Plan
from .settings import Settings
from .version import Version, parse_version

TENSORRT = FLAVOURS["tensorrt"]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a range of TensorRT versions wants to be spoken to."""

    name: DialectName
    since: Version
    network_flags: tuple[str, ...]
    """Members of NetworkDefinitionCreationFlag, by name because releases remove them."""


DIALECTS = (
    Dialect("typed", (11, 0), ()),  # nothing else is left
    Dialect("typed", (10, 12), ("STRONGLY_TYPED",)),
    Dialect("legacy", (8, 5), ("EXPLICIT_BATCH",)),  # needed up to 9, ignored by 10
)
"""Newest first."""


def dialect_for(version: str) -> Dialect:
    """The dialect of a TensorRT version.

    Raises:
        BuildError: if it is too old.
    """
    for dialect in DIALECTS:
        if parse_version(version) >= dialect.since:
            return dialect
    raise BuildError(
        f"TensorRT {version} takes no uint8 input; roadseg needs 8.5 or later (JetPack 5.1 or later)."
    )


def build_tensorrt(model: Model, compute_capability: str | None, settings: Settings) -> Plan:
    """Build for the GPU of this machine.

    Raises:
        ArtifactError: if ranges or kernels are damaged or of another model.
        BuildError: if there is no GPU, or another than was asked for, or TensorRT cannot build the model.
        UsageError: if `settings` does not fit the TensorRT or the model.
        MissingDependencyError: if TensorRT is not installed.
    """
    gpu = require_gpu(model.path, compute_capability)
    library = require(TENSORRT.module, f"building {model.path} with {TENSORRT.title}")
    dialect = dialect_for(library.__version__)
    precision = choose_precision(model, dialect, settings)
    choice = roads.choose(model, library, gpu.compute_capability, settings)
    roads.provide(library, model, choice)
    with roads.advised(choice):
        network = Network(library, TENSORRT, roads.prepare(model, choice), network_flags(library, dialect))
    taken = roads.taken(library, network.network, model, choice, settings)
    if dialect.name == "legacy":
        allow_legacy(library, network.config, precision, read_ranges(settings.ranges, model))
    if settings.timing_cache:
        attach_timing_cache(network.config, settings.timing_cache)
    with roads.advised(choice):
        plan = network.build(
            settings,
            compute_capabilities=(gpu.compute_capability,),
            precision=precision,
            dialect=dialect.name,
            roads=taken,
            gpu=gpu,
        )
    if settings.timing_cache:
        write_atomically(settings.timing_cache, bytes(network.config.get_timing_cache().serialize()))
    return plan


def require_gpu(model: Path, compute_capability: str | None) -> Gpu:
    """The GPU of this machine, which is the one TensorRT builds for.

    Raises:
        BuildError: if there is none, or its compute capability is not the one asked for.
    """
    try:
        gpu = find_gpu()
    except EngineError as error:
        raise BuildError(
            f"{error}, and TensorRT builds only on the GPU an engine is for. Build {model} there, or with "
            "--flavour rtx."
        ) from error
    if compute_capability not in (None, gpu.compute_capability):
        raise BuildError(
            f"TensorRT builds only for the GPU of this machine, {gpu.name} of compute capability "
            f"{gpu.compute_capability}, not for {compute_capability}. Build on a machine with that GPU, or with "
            "--flavour rtx."
        )
    return gpu


def network_flags(library: Any, dialect: Dialect) -> int:
    """The dialect's flags as `create_network` takes them: one bit each."""
    members = library.NetworkDefinitionCreationFlag.__members__
    return sum(1 << int(members[name]) for name in dialect.network_flags)


def choose_precision(model: Model, dialect: Dialect, settings: Settings) -> Precision:
    """The precision the engine will have.

    Raises:
        UsageError: if what was asked for cannot be had from this model in this dialect.
    """
    if dialect.name == "typed":
        if settings.precision or settings.ranges:
            raise UsageError(
                "this TensorRT reads precision from the graph; build the model that `roadseg quantize` writes, "
                "and give neither precision nor ranges."
            )
        return model.precision
    wanted = settings.precision or model.precision
    if settings.ranges and (model.quantised or wanted != "int8"):
        # TensorRT would leave the cache aside and say nothing (https://github.com/NVIDIA/TensorRT/issues/1837).
        raise UsageError(
            f"{settings.ranges} would not be used: ranges are for an INT8 engine of a model without Q/DQ nodes. "
            f"Build {model.path} without them, or give the FP32 model and precision int8."
        )
    if wanted == "int8" and not model.quantised and not settings.ranges:
        raise UsageError(
            f"an INT8 engine of {model.path} needs ranges: make them with `roadseg calibrate`, or build the model "
            "that `roadseg quantize --precision int8` writes."
        )
    return wanted


def allow_legacy(library: Any, config: Any, precision: Precision, cache: bytes | None) -> None:
    """Set the flags that `precision` needs, and hand over the calibration cache where there is one.

    INT8 never comes alone: layers without an INT8 kernel would run in FP32
    (https://github.com/pytorch/TensorRT/issues/93).
    """
    if precision != "fp32":
        config.set_flag(library.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(library.BuilderFlag.INT8)
    if cache is not None:
        config.int8_calibrator = cache_reader(library, cache)


def read_ranges(path: Path | None, model: Model) -> bytes | None:
    """A calibration cache, once it is certain that it belongs to `model`.

    Raises:
        ArtifactError: if it is not what its manifest says.
        BuildError: if it was collected on another model.
    """
    if path is None:
        return None
    if read_manifest(path, "ranges").inputs.get("onnx") != model.sha256:
        raise BuildError(f"{path} was collected on another model than {model.path}. Calibrate this one.")
    return read_bytes(path)


def cache_reader(library: Any, cache: bytes) -> Any:
    """A calibrator that never sees an image: all it does is hand TensorRT the cache."""

    class CacheReader(library.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IInt8EntropyCalibrator2.__init__(self)  # TensorRT crashes if a subclass leaves this out

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:  # noqa: ARG002
            return None

        def read_calibration_cache(self) -> bytes:
            return with_header(cache, library.__version__)

        def write_calibration_cache(self, cache: bytes) -> None:
            """TensorRT offers back what it was given."""

    return CacheReader()


def with_header(cache: bytes, version: str) -> bytes:
    r"""The cache as TensorRT `version` accepts it: the first line has to name that version and the calibrator.

    >>> with_header(b"TRT-100300-MinMaxCalibration\nimages: 3c010a14\n", "8.6.2")
    b'TRT-8602-EntropyCalibration2\nimages: 3c010a14\n'
    """
    major, minor, patch = parse_version(version)[:3]
    # NvInferVersion.h: NV_TENSORRT_VERSION has two digits for the minor version since 10.
    number = major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch
    return b"TRT-%d-EntropyCalibration2\n" % number + cache.partition(b"\n")[2]


def attach_timing_cache(config: Any, path: Path) -> None:
    """Let the builder take kernel timings from `path` where it exists, so that it chooses the same kernels again.

    Raises:
        BuildError: if the timings were taken by another TensorRT or on another GPU.
    """
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BuildError(
            f"{path} was made by another TensorRT or on another GPU. Delete it, or name another file."
        )
