"""From a model to an engine, with the kernels of its operators: what `roadseg build` does."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Literal

from roadseg import engines
from roadseg.runtime import Manifest, MissingDependencyError, UsageError
from roadseg.runtime.plugins import package_path

log = logging.getLogger(__name__)


def build_engine(
    model: Path,
    out: Path,
    *,
    flavour: Literal["auto", "tensorrt", "rtx"] = "auto",
    compute_capability: str | None = None,
    settings: engines.Settings = engines.Settings(),  # noqa: B008  # frozen
) -> Manifest:
    """Build an engine; kernels that it would use and that nobody has made yet are compiled first, if they can be.

    Arguments and errors are those of `roadseg.engines.build`. A package of kernels is left beside the model.
    """
    if gpu := engines.wanted_kernels(model, flavour, compute_capability, settings):
        compile_kernels(model, gpu)
    return engines.build(model, out, flavour=flavour, compute_capability=compute_capability, settings=settings)


def compile_kernels(model: Path, compute_capability: str) -> None:
    """Write the package of a model beside it, on a machine that has what that needs, for a GPU that is known."""
    # The build says what is missing, where the settings require plugins.
    with contextlib.suppress(ImportError, MissingDependencyError, UsageError):
        from roadseg.export.kernels import write_kernels

        out = package_path(model)
        write_kernels(model, [compute_capability], out)
        log.info("compiled %s", out)
