"""TensorRT-RTX: engines made ahead of time for named GPUs, with no GPU present.

It reads typed graphs only: FP32, FP16 by casts, INT8 by Q/DQ nodes. The same model gives the same bytes.
"""

from __future__ import annotations

from typing import Any

from roadseg.runtime import BuildError, UsageError, require
from roadseg.runtime.plan import FLAVOURS

from .model import Model
from .network import Network, Plan
from .roads import Choice, all_functions, prepare, refusal
from .settings import Settings

RTX = FLAVOURS["rtx"]
TURING = "7.5"
"""The one GPU family that an engine made for no GPU in particular leaves out."""


def supported_compute_capabilities(library: Any) -> tuple[str, ...]:
    """GPUs this version of TensorRT-RTX builds for, oldest first, e.g. "8.6"."""
    numbers = (int(name[2:]) for name in library.ComputeCapability.__members__ if name.startswith("SM"))
    return tuple(f"{number // 10}.{number % 10}" for number in sorted(numbers))


def portable_compute_capabilities(library: Any) -> tuple[str, ...]:
    """GPUs that an engine made for none in particular runs on: Ampere and later, but not Hopper.

    An H100 (9.0) builds engines and opens none (docs/gpu.md).
    Source: TensorRT-RTX documentation, "CPU-Only AOT and TensorRT-RTX Engines".
    """
    return tuple(cc for cc in supported_compute_capabilities(library) if cc != TURING)


def build_rtx(model: Model, compute_capability: str | None, settings: Settings) -> Plan:
    """Build for one compute capability, or with None for GeForce and RTX GPUs since Ampere.

    Raises:
        BuildError: if TensorRT-RTX does not know the compute capability, has no plugins that `settings` requires,
            or cannot build the model.
        UsageError: if `settings` holds something that only TensorRT has.
        MissingDependencyError: if TensorRT-RTX is not installed.
    """
    library = require(RTX.module, f"building {model.path} with {RTX.title}")
    check_settings(settings)
    if compute_capability is not None:
        check_compute_capability(library, compute_capability)
    choice = choose(model, settings)
    network = Network(library, RTX, prepare(model, choice))
    if compute_capability is not None:
        aim(library, network.config, compute_capability)
    return network.build(
        settings,
        compute_capabilities=(compute_capability,)
        if compute_capability
        else portable_compute_capabilities(library),
        precision=model.precision,
        dialect="typed",
        roads=choice.roads,
    )


def check_settings(settings: Settings) -> None:
    """Raise UsageError if `settings` holds something that only TensorRT has."""
    if settings.timing_cache or settings.precision or settings.ranges:
        raise UsageError(
            f"{RTX.title} takes no timing cache, precision or ranges: it times nothing and reads precision from "
            "the graph. Leave them out, and build the model that `roadseg quantize` writes."
        )
    if settings.kernels:
        raise UsageError(f"{RTX.title} takes no plugins, so {settings.kernels} would not be used. Leave it out.")


def choose(model: Model, settings: Settings) -> Choice:
    """Every custom operator by its definition; TensorRT-RTX has nothing else.

    Raises:
        BuildError: if `settings` requires plugins for them.
    """
    choice = all_functions(model)
    if choice.roads and settings.plugins == "require":
        reasons = dict.fromkeys(choice.roads, f"{RTX.title} takes no plugins; build it with --flavour tensorrt")
        raise BuildError(refusal(model, reasons))
    return choice


def check_compute_capability(library: Any, compute_capability: str) -> None:
    """Raise BuildError unless `library` builds for `compute_capability`."""
    known = supported_compute_capabilities(library)
    if compute_capability not in known:
        raise BuildError(
            f"{RTX.title} {library.__version__} builds for the compute capabilities {', '.join(known)}, not for "
            f"{compute_capability!r}. Choose one of them, or build with --flavour tensorrt on the machine itself."
        )


def aim(library: Any, config: Any, compute_capability: str) -> None:
    """Make a builder's configuration one for `compute_capability`."""
    member = "SM" + compute_capability.replace(".", "")
    config.num_compute_capabilities = 1
    config.set_compute_capability(library.ComputeCapability.__members__[member], 0)
