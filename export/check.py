"""Is the model well formed, will TensorRT take it, and does it answer as the network does?"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import onnxruntime
import torch
from torch import Tensor, nn

from roadseg.runtime import ExportError, MissingDependencyError, ModelSpec, require, track
from roadseg.runtime.backends.torch import Normalise, TensorNet
from roadseg.runtime.messages import in_plain_words, logger

from .choices import Following, with_choices

Frames = npt.NDArray[np.uint8]

MIN_AGREEMENT = 0.9999
"""Share of pixels that must get the same label as in PyTorch, or one that ties with it."""
MAX_TIED = 0.001
"""Share of pixels that may get one that ties: rounding decides them, and a few weigh much in a small image. Also
the share of what a network chooses by comparison that rounding may decide."""
MAX_LOGIT_ERROR = 1e-3
"""Largest difference of a logit from PyTorch's, as a share of the largest logit (at least 1)."""
LARGE_CONSTANT = 1024
"""Bytes above which no constant is one that a shape depends on."""
SYNTHETIC_FRAMES = 2
"""Frames to compare on where none are given."""

UNSUPPORTED_OPS = frozenset(
    {
        "AffineGrid", "Bernoulli", "BitShift", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence",
        "ConvInteger", "DFT", "DeformConv", "Det", "DynamicQuantizeLinear", "MatMulInteger", "MaxRoiPool",
        "MaxUnpool", "Multinomial", "Optional", "QLinearConv", "QLinearMatMul", "SequenceAt",
        "SequenceConstruct", "SplitToSequence", "Unique",
    }
)  # fmt: skip
"""Ops that TensorRT's parser refuses whatever their inputs are; a test asks TensorRT-RTX about each."""
RESIZE_TRANSFORMATIONS = frozenset(
    {"align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn"}
)
"""All that TensorRT's Resize knows (onnxOpCheckers.cpp, checkResize)."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a model's answers differ from PyTorch's."""

    frames: int
    pixels: int
    agreement: float
    """Share of pixels with the same label, 0 to 1."""
    tied: float
    """Share of pixels with another label whose logit in PyTorch is as good as the largest: as close to it as
    rounding may move a logit."""
    max_logit_error: float | None
    """Largest absolute difference; None where the model answers with labels."""
    max_logit: float
    """Largest absolute logit of PyTorch."""
    followed: float = 0.0
    """Share of what the network chooses by comparison in which PyTorch was made to choose as the model did, since
    that is as good: as close to the largest value as rounding may move it."""

    def raise_for_difference(self, name: str) -> None:
        """Raise ExportError if the model is not the network."""
        if self.agreement + self.tied < MIN_AGREEMENT or self.tied > MAX_TIED:
            raise ExportError(
                f"{name}: ONNX Runtime and PyTorch give the same label to {self.agreement:.4%} of {self.pixels} "
                f"pixels in {self.frames} frames, and tied labels to {self.tied:.4%}; at least "
                f"{MIN_AGREEMENT:.2%} together, with at most {MAX_TIED:.2%} of ties, is expected. "
                "Nothing was written."
            )
        if self.followed > MAX_TIED:
            raise ExportError(
                f"{name}: ONNX Runtime chooses another of several equally large values than PyTorch in "
                f"{self.followed:.4%} of cases; at most {MAX_TIED:.2%} is expected. Nothing was written."
            )
        allowed = allowed_error(self.max_logit)
        if self.max_logit_error is not None and not self.max_logit_error <= allowed:
            raise ExportError(
                f"{name}: ONNX Runtime's logits differ from PyTorch's by up to {self.max_logit_error:.2g}; "
                f"at most {allowed:.2g} is expected for logits up to {self.max_logit:.3g}. Nothing was written."
            )


def allowed_error(max_logit: float) -> float:
    """How far rounding may move a logit where the largest is `max_logit`."""
    return MAX_LOGIT_ERROR * max(1.0, max_logit)


def check_structure(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, with the shapes of all its values.

    Raises:
        ExportError: if ONNX's checker or its strict shape inference refuses it, or the image is not used.
    """
    light = without_weights(model)
    try:
        onnx.checker.check_model(light)
        for tensor in model.graph.initializer:
            onnx.checker.check_tensor(tensor)
        inferred = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    source = model.graph.input[0].name
    if not any(source in node.input for node in model.graph.node):
        raise ExportError(
            f"the network's answer does not depend on its input: nothing in the graph reads {source}."
        )
    for field in ("node", "output", "value_info"):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(getattr(inferred.graph, field))
    return model


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that takes its large constants as inputs: enough to infer shapes from, and quick to pass around."""
    light = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    light.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > LARGE_CONSTANT:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        else:
            light.graph.initializer.append(tensor)
    return light


def lint(model: onnx.ModelProto, data: bytes | None = None) -> tuple[str, ...]:
    """What TensorRT will not take, one sentence per node.

    Where tensorrt_rtx is installed its parser decides, which needs no GPU; elsewhere a table of known gaps does.

    Args:
        model: the graph.
        data: content of its file, where that is at hand.
    """
    try:
        trt = require("tensorrt_rtx", "asking TensorRT's parser")
    except MissingDependencyError:
        return tuple(known_gaps(model, "TensorRT").values())
    library = f"TensorRT-RTX {'.'.join(trt.__version__.split('.')[:2])}"
    return tuple(parser_messages(model, trt, library, data).values())


def known_gaps(model: onnx.ModelProto, library: str) -> dict[str, str]:
    """What TensorRT is known not to take, by node name."""
    functions = {(function.domain, function.name) for function in model.functions}
    uint8 = {i.name for i in model.graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    gaps = {}
    for node in model.graph.node:
        if (node.domain, node.op_type) in functions:
            continue
        if reason := _op_gap(node) or (_resize_gap(node) if node.op_type == "Resize" else _uint8_gap(node, uint8)):
            gaps[node.name] = f"{node.op_type} ({node.name}): {reason} unsupported by {library}."
    return gaps


def _op_gap(node: onnx.NodeProto) -> str:
    if node.domain not in ("", "ai.onnx") or node.op_type in UNSUPPORTED_OPS:
        return "op"
    return "indices" if node.op_type == "MaxPool" and len(node.output) > 1 else ""


def _resize_gap(node: onnx.NodeProto) -> str:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    transformation = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch").decode()
    if transformation not in RESIZE_TRANSFORMATIONS:
        return f"coordinate_transformation_mode {transformation}"
    if attributes.get("antialias", 0):
        return "antialias"
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy {policy}"


def _uint8_gap(node: onnx.NodeProto, uint8: set[str]) -> str:
    return "uint8 in anything but a Cast" if node.op_type != "Cast" and uint8.intersection(node.input) else ""


def parser_messages(model: onnx.ModelProto, trt: Any, library: str, data: bytes | None = None) -> dict[str, str]:
    """What TensorRT's parser says against a model, by node name, in our words where `known_gaps` has them.

    Operators are looked at by their definitions, as `engines` has them parsed.
    """
    if model.functions:
        data = onnx.inliner.inline_local_functions(model).SerializeToString()
    log = logger(trt)
    network = trt.Builder(log).create_network(0)
    parser = trt.OnnxParser(network, log)
    parser.supports_model_v2(model.SerializeToString() if data is None else data)
    log.take()
    known = known_gaps(model, library)
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return {e.node_name(): known.get(e.node_name()) or _plain(e, library) for e in errors}


def _plain(error: Any, library: str) -> str:
    node = f"{error.node_operator()} ({error.node_name()})"
    reason = in_plain_words([error.desc()])
    # The parser takes every op it does not know for a plugin that somebody forgot.
    if not reason or "plugin" in reason.lower():
        return f"{node}: op unsupported by {library}."
    return f"{node}: unsupported by {library}: {reason}"


def compare_with_torch(
    net: nn.Module, spec: ModelSpec, model: bytes, frames: Iterable[Frames], batch: int | None
) -> Comparison:
    """Run the network in PyTorch and the model in ONNX Runtime on the same frames.

    What the network chooses by comparison PyTorch chooses as the model did, where rounding alone decides.

    Args:
        net: in evaluation mode, on the CPU.
        spec: of `model`.
        model: content of the ONNX file made of `net`.
        frames: `(H, W, 3)` uint8 RGB of the spec's size.
        batch: frames per call of `model`; None where any number goes.

    Raises:
        ExportError: if ONNX Runtime cannot run the model, or there are no frames.
        SpecError: if a frame has another size or type.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(with_choices(model), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, one per status code
        raise ExportError(f"{spec.name}: ONNX Runtime cannot open the exported model: {error}") from error
    ask = _ask_labels if spec.io == "frame" else _ask_logits
    batches = track(_batched(frames, spec, batch), "compare with PyTorch")
    parts = [ask(net, spec, session, group) for group in batches]
    if not parts:
        raise ExportError(f"{spec.name}: there are no frames to compare the model with PyTorch on.")
    pixels = sum(p.pixels for p in parts)
    errors = [p.max_logit_error for p in parts if p.max_logit_error is not None]
    return Comparison(
        sum(p.frames for p in parts),
        pixels,
        sum(p.agreement * p.pixels for p in parts) / pixels,
        sum(p.tied * p.pixels for p in parts) / pixels,
        float(np.max(errors)) if errors else None,
        max(p.max_logit for p in parts),
        sum(p.followed * p.pixels for p in parts) / pixels,
    )


def _ask_labels(
    net: nn.Module, spec: ModelSpec, session: onnxruntime.InferenceSession, frames: Frames
) -> Comparison:
    labels, *choices = map(torch.from_numpy, session.run(None, {"frames": frames}))
    expected, followed = _torch_logits(net, spec, Normalise(spec)(torch.from_numpy(frames)), choices)
    return dataclasses.replace(_compare(labels, expected), followed=followed)


def _ask_logits(
    net: nn.Module, spec: ModelSpec, session: onnxruntime.InferenceSession, frames: Frames
) -> Comparison:
    images = Normalise(spec)(torch.from_numpy(frames))
    logits, *choices = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
    expected, followed = _torch_logits(net, spec, images, choices)
    error = float((logits - expected).abs().max())
    return dataclasses.replace(_compare(logits.argmax(1), expected), max_logit_error=error, followed=followed)


def _torch_logits(
    net: nn.Module, spec: ModelSpec, images: Tensor, choices: Sequence[Tensor]
) -> tuple[Tensor, float]:
    """Logits with the model's choices made where they are as good, and the share of those that differ."""
    following = Following(choices, allowed_error)
    with torch.inference_mode(), following if choices else contextlib.nullcontext():
        logits: Tensor = TensorNet(net, spec)(images)
    return logits, following.share


def _compare(labels: Tensor, logits: Tensor) -> Comparison:
    """Labels `(N, H, W)` beside PyTorch's logits `(N, C, H, W)`."""
    differs = labels != logits.argmax(1)
    given, others = labels[differs].long(), logits.movedim(1, -1)[differs]  # (K,), (K, C)
    behind = others.amax(1) - others.gather(1, given[:, None])[:, 0]
    low, high = logits.aminmax()
    max_logit = float(torch.maximum(-low, high))
    return Comparison(
        frames=len(labels),
        pixels=labels.numel(),
        agreement=1 - len(behind) / labels.numel(),
        tied=int((behind <= allowed_error(max_logit)).sum()) / labels.numel(),
        max_logit_error=None,
        max_logit=max_logit,
    )


def _batched(frames: Iterable[Frames], spec: ModelSpec, batch: int | None) -> Iterator[Frames]:
    """Batches for the model; an open one gets pairs, a fixed one is filled by repeating the last frame."""
    group: list[Frames] = []
    for frame in frames:
        spec.check_frames(frame[None])
        group.append(frame)
        if len(group) == (batch or 2):
            yield np.stack(group)
            group = []
    if group:
        yield np.stack(group + group[-1:] * ((batch or len(group)) - len(group)))


def synthetic_frames(spec: ModelSpec, count: int = SYNTHETIC_FRAMES) -> Iterator[Frames]:
    """Frames of smooth noise, coarse and fine, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        noise = torch.stack([_noise(spec, pitch, generator) for pitch in (64, 16, 4)]).mean(0)
        frame: Frames = (255 * noise).to(torch.uint8).numpy()
        yield frame


def _noise(spec: ModelSpec, pitch: int, generator: torch.Generator) -> torch.Tensor:
    """`(H, W, 3)` of 0 to 1, interpolated between random colours `pitch` pixels apart."""
    colours = torch.rand(1, 3, spec.height // pitch + 2, spec.width // pitch + 2, generator=generator)
    return nn.functional.interpolate(colours, spec.size, mode="bilinear")[0].permute(1, 2, 0).contiguous()
