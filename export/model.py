"""From a PyTorch network to a checked ONNX file."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import onnx
import onnx_ir as ir
from torch import nn

from roadseg.runtime import ModelSpec, UsageError, sha256_bytes, write_atomically
from roadseg.runtime.onnxfile import OPSETS, PRECISION_KEY, PROVENANCE_KEY, SPEC_KEY, serialise, set_metadata

from .check import Frames, check_structure, compare_with_torch, lint, synthetic_frames
from .passes import (
    AttachFunctions,
    BroadcastUpsample,
    Canonicalize,
    FoldBatchNorm,
    FuseTail,
    LowerAdaptivePool,
    NameByModule,
    NormaliseOnce,
    Pass,
    SignBeforeNorm,
    Simplify,
)
from .trace import NET_PATH, trace

OPSET = 20
"""ONNX opset of an export that asks for no other."""
FIRST_OPSET = 18
"""Oldest that torch's exporter writes."""


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with the network it was made from."""

    path: Path
    sha256: str
    opset: int
    nodes: dict[str, int]
    """How many of each op type, most frequent first."""
    parameters: int
    """Of the network."""
    frames: int
    """How many were compared, the ones that fill a batch included."""
    synthetic: bool
    """Whether those were made up, because none were given."""
    pixels: int
    """How many were compared."""
    agreement: float
    """Share of pixels with PyTorch's label, 0 to 1."""
    max_logit_error: float | None
    """Largest absolute difference of a logit from PyTorch's; None where the model answers with labels."""
    messages: tuple[str, ...]
    """What TensorRT will not take."""


def export(
    net: nn.Module,
    spec: ModelSpec,
    out: Path,
    *,
    batch: int | None = 1,
    opset: int = OPSET,
    fuse_tail: bool = False,
    frames: Iterable[Frames] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write `net` as an ONNX model that carries its spec, once it answers as `net` does in PyTorch.

    The same network and arguments give the same bytes.

    Args:
        net: takes normalised `(N, 3, H, W)` and returns logits `(N, classes, h, w)`, alone or first in a list,
            tuple or dict. It is left on the CPU, in FP32 and in evaluation mode.
        spec: `spec.io` says whether the model takes frames and gives labels, or takes images and gives logits.
        out: where the model is written.
        batch: frames per call; None leaves it open.
        opset: of the default ONNX domain.
        fuse_tail: whether upsampling and argmax become one operator, which TensorRT from 10 on computes by one
            kernel (see `passes.FuseTail`).
        frames: `(H, W, 3)` uint8 RGB of the spec's size to compare on; smooth noise where none are given.
        provenance: what the weights were made from; it is stored in the model.

    Raises:
        ExportError: if the network cannot be written as a graph, or the model does not answer as it does.
        SpecError: if a frame has another size or type.
        UsageError: if `batch` or `opset` cannot be meant.
    """
    if batch is not None and batch < 1:
        raise UsageError(f"batch is the number of frames per call, or None for any number; got {batch}.")
    if not FIRST_OPSET <= opset < OPSETS.stop:
        raise UsageError(f"opset is {FIRST_OPSET} to {OPSETS.stop - 1}; got {opset}.")
    net = net.cpu().float().eval()
    model = convert(net, spec, batch, opset, fuse_tail=fuse_tail)
    set_metadata(
        model,
        {
            SPEC_KEY: spec.to_json(),
            PROVENANCE_KEY: msgspec.json.encode(dict(provenance or {}), order="sorted").decode(),
            PRECISION_KEY: "fp32",
        },
    )
    data = serialise(model)
    given = synthetic_frames(spec) if frames is None else frames
    comparison = compare_with_torch(net, spec, data, given, batch)
    comparison.raise_for_difference(spec.name)
    write_atomically(out, data)
    return ExportReport(
        path=out,
        sha256=sha256_bytes(data),
        opset=opset,
        nodes=dict(collections.Counter(node.op_type for node in model.graph.node).most_common()),
        parameters=sum(p.numel() for p in net.parameters()),
        frames=comparison.frames,
        synthetic=frames is None,
        pixels=comparison.pixels,
        agreement=comparison.agreement,
        max_logit_error=comparison.max_logit_error,
        messages=lint(model, data),
    )


def convert(
    net: nn.Module, spec: ModelSpec, batch: int | None, opset: int = OPSET, *, fuse_tail: bool = False
) -> onnx.ModelProto:
    """The valid, simplified, canonical graph of a network, not yet compared with it.

    Raises:
        ExportError: if there is none.
    """
    with collector_paused():
        model = trace(net, spec, batch, opset)
        for apply in passes(spec, fuse_tail=fuse_tail):
            model, _ = apply(model)
        return check_structure(ir.to_proto(model))


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from searching a growing graph again and again, a quarter of a deep export."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def passes(spec: ModelSpec, *, fuse_tail: bool = False) -> Sequence[Pass]:
    """What happens to a traced graph, in this order."""
    tail: tuple[Pass, ...] = (FuseTail(), AttachFunctions()) if fuse_tail else ()
    return (
        NameByModule(NET_PATH[spec.io]),
        LowerAdaptivePool(),
        AttachFunctions(),
        Simplify(),
        FoldBatchNorm(),
        SignBeforeNorm(),
        NormaliseOnce(),
        BroadcastUpsample(),
        *tail,
        Canonicalize(),
    )
