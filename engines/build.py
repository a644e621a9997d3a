"""The one way from an ONNX model to an engine with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from roadseg.runtime import EngineError, Manifest, require, sha256_file, write_with_manifest
from roadseg.runtime.cuda import find_gpu
from roadseg.runtime.plan import FLAVOURS, FlavourName, PlanDetails

from .model import Model, read_model
from .roads import custom_ops, kernels_path, plugin_road
from .rtx import build_rtx
from .settings import Settings
from .tensorrt import build_tensorrt, require_gpu


def build(
    model: Path,
    out: Path,
    *,
    flavour: Literal["auto", "tensorrt", "rtx"] = "auto",
    compute_capability: str | None = None,
    settings: Settings = Settings(),  # noqa: B008  # frozen
) -> Manifest:
    """Build an engine and write it with its manifest.

    Args:
        model: ONNX file, as `roadseg export` and `roadseg quantize` write it.
        out: plan to write; the manifest goes beside it.
        flavour: "auto" takes TensorRT where it is installed and this machine has the GPU, else TensorRT-RTX.
        compute_capability: of the GPU to build for, e.g. "8.6". Without it TensorRT-RTX builds for GeForce and
            RTX GPUs since Ampere; TensorRT knows only the GPU of this machine.
        settings: the rest.

    Raises:
        ArtifactError: if `model` is missing, cut short, or has no ModelSpec, or kernels are of another model.
        BuildError: if TensorRT cannot build it; with what TensorRT says about it.
        MissingDependencyError: if the library is not installed.
    """
    source = read_model(Path(model))
    name = choose_flavour(compute_capability) if flavour == "auto" else flavour
    plan = (build_rtx if name == "rtx" else build_tensorrt)(source, compute_capability, settings)
    manifest = Manifest(
        kind="plan",
        file_sha256="",
        spec=source.spec,
        inputs=hash_inputs(source, settings, plan.details),
        details=msgspec.to_builtins(plan.details),
        versions={FLAVOURS[name].module: plan.details.version},
    )
    return write_with_manifest(Path(out), plan.data, manifest)


def wanted_kernels(
    model: Path,
    flavour: Literal["auto", "tensorrt", "rtx"],
    compute_capability: str | None,
    settings: Settings,
) -> str | None:
    """The compute capability for which `build` would use kernels that nobody has made yet; None where none.

    Arguments and errors are those of `build`.
    """
    name = choose_flavour(compute_capability) if flavour == "auto" else flavour
    if name == "rtx" or settings.plugins == "never" or settings.kernels or kernels_path(model, settings).is_file():
        return None
    gpu = require_gpu(model, compute_capability)
    library = require(FLAVOURS[name].module, f"building {model} with {FLAVOURS[name].title}")
    wanted = plugin_road(library.__version__) and custom_ops(read_model(model))
    return gpu.compute_capability if wanted else None


def choose_flavour(compute_capability: str | None) -> FlavourName:
    """TensorRT where it can build for that GPU, else TensorRT-RTX."""
    try:
        gpu = find_gpu()
    except EngineError:
        return "rtx"
    fits = compute_capability in (None, gpu.compute_capability)
    return "tensorrt" if fits and FLAVOURS["tensorrt"].importable else "rtx"


def hash_inputs(model: Model, settings: Settings, details: PlanDetails) -> dict[str, str]:
    """SHA-256 of every file the plan was made from; of the timing cache as the build left it."""
    plugins = any(road.road != "function" for road in details.roads.values())
    files = {
        "kernels": kernels_path(model.path, settings) if plugins else None,
        "ranges": settings.ranges,
        "timing_cache": settings.timing_cache,
    }
    return {"onnx": model.sha256} | {role: sha256_file(path) for role, path in files.items() if path}
