"""From a PyTorch network to the graph that torch's exporter writes."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import torch.fx.config as fx_config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from roadseg.runtime import ExportError, ModelSpec, SpecError
from roadseg.runtime.backends.torch import FrameNet, TensorNet, main_output

from .ops import translation
from .passes.lower_adaptive_pool import TRANSLATION

TENSORS = {"frame": ("frames", "labels"), "tensor": ("images", "logits")}
"""Names of input and output by `ModelSpec.io`."""
NET_PATH = {"frame": "logits.net", "tensor": "net"}
"""Where the network sits in the module that is traced."""
LIBRARIES = {"torch", "onnxscript", "onnx_ir"}
"""Folders whose lines say nothing about what is wrong with a network."""


def trace(net: nn.Module, spec: ModelSpec, batch: int | None, opset: int) -> ir.Model:
    """Write `net` with its pre- and post-processing as a graph, not yet simplified.

    Args:
        net: in evaluation mode, on the CPU.
        spec: its `io` decides what is around the network.
        batch: frames per call; None leaves it open.
        opset: of the default ONNX domain.

    Raises:
        ExportError: if the network fails, returns no logits, or does what a graph cannot.
    """
    whole = FrameNet(net, spec) if spec.io == "frame" else TensorNet(net, spec)
    source, answer = TENSORS[spec.io]
    try:
        with quiet():
            program = torch.onnx.export(
                whole.eval(),
                (_example(spec, batch),),
                dynamo=True,
                verbose=False,
                optimize=False,  # its fusions forget which module a node belongs to
                opset_version=opset,
                input_names=[source],
                output_names=[answer],
                dynamic_shapes=None if batch else ({0: torch.export.Dim("batch")},),
                custom_translation_table=TRANSLATION | translation(),
            )
    except Exception as error:  # whatever torch or the network raises
        check_output(net, spec, batch)
        raise ExportError(
            f"{spec.name} cannot be written as an ONNX graph: {essence(error)} A network exports if ONNX has "
            "its operations, and if no branch, loop or size depends on values in the image, nor on the number of "
            "images where the batch is open."
        ) from error
    assert program is not None
    return program.model


def check_output(net: nn.Module, spec: ModelSpec, batch: int | None) -> None:
    """Run `net` once.

    Raises:
        ExportError: if it fails at this size, or does not return `(N, classes, h, w)`.
    """
    shape = (batch or 1, 3, spec.height, spec.width)
    try:
        main_output(run_once(net, shape), spec)
    except SpecError as error:
        raise ExportError(str(error)) from error
    except Exception as error:  # whatever a network raises
        raise ExportError(f"{spec.name} fails on images of shape {shape}: {essence(error)}") from error


def run_once(net: nn.Module, shape: tuple[int, ...]) -> object:
    """What `net` returns for an image of `shape`: shapes only where it lets itself be run without values."""
    with torch.no_grad():
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                return net(torch.zeros(shape))
        except Exception:  # because of itself, or because it looks at values
            return net(torch.zeros(shape))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what torch's exporter prints, warns and logs, and spare it what takes time alone."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            without_stack_traces(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def without_stack_traces() -> Iterator[None]:
    """Keep torch from noting the stack of every node, where its version can be told so (2.13 can, 2.11 cannot)."""
    name = "do_not_emit_stack_traces"
    if not hasattr(fx_config, name):
        yield
        return
    before = getattr(fx_config, name)
    setattr(fx_config, name, True)
    try:
        yield
    finally:
        setattr(fx_config, name, before)


def essence(error: BaseException) -> str:
    """The first sentence of what went wrong first, with the network's own line where there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1]).rstrip(".")
    sentence = f"{type(error).__name__}: {said}" if said else type(error).__name__
    ours = {__file__, sys.modules[FrameNet.__module__].__file__}
    lines_run = traceback.extract_tb(error.__traceback__)
    own = [f for f in lines_run if f.filename not in ours and not LIBRARIES & set(Path(f.filename).parts)]
    where = (
        f" (at `{own[-1].line}`, line {own[-1].lineno} of {Path(own[-1].filename).name})"
        if own and own[-1].line
        else ""
    )
    return sentence + where + "."


def _example(spec: ModelSpec, batch: int | None) -> Any:
    # torch.export takes an axis of length 1 for a constant, so an open batch is traced with 2.
    count = batch or 2
    if spec.io == "frame":
        return torch.zeros(count, spec.height, spec.width, 3, dtype=torch.uint8)
    return torch.zeros(count, 3, spec.height, spec.width)
