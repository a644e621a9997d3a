"""Which tensors come near the ends of float16's range, on frames.

The float32 model runs, and of each tensor only its largest magnitude is kept; the reductions are nodes of the
graph that runs, so memory holds no more than the network needs. How far a tensor goes depends on weights and
frames, whereas `fp16` and `sums` judge by operators: a tensor that they make float16 and that comes near 65504
here is one that an engine may make infinite on another frame. What custom operators compute inside is not seen;
their kernels compute in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from roadseg.runtime import CalibrationError, Dataset, ModelSpec, track
from roadseg.runtime.onnxfile import onnx_spec
from roadseg.runtime.pixels import fit

from .choose import choose
from .fp16 import FLOAT16_MAX, assign_types
from .graph import Graph, set_nodes, title
from .methods import RULES
from .placement import Placement
from .ranges import Collector
from .source import load_float_model

MARGIN = 4.0
"""A tensor is near an end of the range if less than this factor lies between."""
FLOAT16_SMALLEST = float(np.finfo(np.float16).tiny)
"""Smallest number with all of float16's digits, 2^-14."""
NAMED = 5
"""Tensors that an error names, at most."""


@dataclasses.dataclass(frozen=True)
class Extreme:
    """A tensor near an end of float16's range."""

    tensor: str
    node: str
    """Operator and name of the node that gives it."""
    largest: float
    """Its largest magnitude on the frames."""
    kept: str
    """Why it stays float32 in an FP16 model; empty if it becomes float16, or is cast for a reader."""


@dataclasses.dataclass(frozen=True)
class OverflowReport:
    """What float16 would do to a model's tensors."""

    images: int
    tensors: int
    """How many float tensors were looked at."""
    near_overflow: tuple[Extreme, ...]
    """Beyond a quarter of 65504, largest first."""
    near_underflow: tuple[Extreme, ...]
    """Wholly below four times 2^-14, where digits are lost, smallest first; without tensors of zeros."""

    @property
    def at_risk(self) -> tuple[Extreme, ...]:
        """Those of both that are float16 in an FP16 model."""
        return tuple(extreme for extreme in self.near_overflow + self.near_underflow if not extreme.kept)

    @property
    def infinite(self) -> tuple[Extreme, ...]:
        """Those that would be infinite in an FP16 model."""
        return tuple(e for e in self.near_overflow if e.largest > FLOAT16_MAX and not e.kept)

    def summary(self) -> dict[str, object]:
        """Figures, and a line for each tensor."""
        lines = {
            extreme.tensor: f"{extreme.largest:.4g}, "
            + (f"float32: {extreme.kept}" if extreme.kept else "FLOAT16")
            for extreme in self.near_overflow + self.near_underflow
        }
        return {"images": self.images, "tensors": self.tensors, "at_risk": len(self.at_risk), "near": lines}


def overflow(model: Path, dataset: Dataset, *, count: int = 16, seed: int = 0) -> OverflowReport:
    """Run a float32 model on frames and name the tensors that come near the ends of float16's range.

    Args:
        model: float32, as `export` writes it.
        dataset: of which images are chosen, as `calibrate` does.
        count: images to take, at most.
        seed: of the choice of images.

    Raises:
        ArtifactError: if the model cannot be read.
        CalibrationError: if there are no images, the model is typed already, or a value is not finite.
        DataError: if an image cannot be read.
    """
    chosen = choose(dataset, count, seed, force=True)  # nothing is fitted to them, so any split will do
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    frames = (fit(dataset[index].frame, spec) for index in track(chosen, "overflow"))
    return overflow_on(network, spec, frames)


def refuse_overflow(model: Path, dataset: Dataset, *, count: int = 16, seed: int = 0) -> int:
    """Run a float32 model on frames, and stop where a tensor that an FP16 model makes float16 would be infinite.

    Arguments and errors as of `overflow`, and:

    Returns:
        How many frames were looked at.

    Raises:
        CalibrationError: naming the tensors beyond 65504.
    """
    report = overflow(model, dataset, count=count, seed=seed)
    if infinite := report.infinite:
        named = ", ".join(f'"{e.tensor}" of {e.node} ({e.largest:.4g})' for e in infinite[:NAMED])
        more = f" and {len(infinite) - NAMED} more" if len(infinite) > NAMED else ""
        raise CalibrationError(
            f"{model} overflows in FP16: on {report.images} frames of {dataset.name} {len(infinite)} of its "
            f"tensors go beyond {FLOAT16_MAX:.0f} and would be infinite: {named}{more}. Train it so that "
            "they stay small, scale down the weights in front of them, or use INT8, whose other tensors are FP32."
        )
    return report.images


def overflow_on(
    model: onnx.ModelProto, spec: ModelSpec, frames: Iterable[npt.NDArray[np.uint8]]
) -> OverflowReport:
    """The same for a model in memory, and frames of its size, `(height, width, 3)` uint8 RGB."""
    graph = Graph(model)
    kept = float32_reasons(graph)
    images, magnitudes = largest_magnitudes(model, spec, list(kept), frames)
    extremes = [
        Extreme(name, title(graph.producer[name]), largest, kept[name])
        for name, largest in sorted(magnitudes.items(), key=lambda item: item[1])
    ]
    return OverflowReport(
        images=images,
        tensors=len(magnitudes),
        near_overflow=tuple(e for e in reversed(extremes) if e.largest * MARGIN > FLOAT16_MAX),
        near_underflow=tuple(e for e in extremes if 0 < e.largest < FLOAT16_SMALLEST * MARGIN),
    )


def float32_reasons(graph: Graph) -> dict[str, str]:
    """Why each computed tensor is float32 in an FP16 model; empty for those that are float16, or cast to it."""
    half, reasons = assign_types(graph)
    tensors = [name for node in graph.nodes for name in node.output if graph.is_float(name)]
    return {name: _float32_reason(graph, name, half, reasons) for name in tensors}


def _float32_reason(graph: Graph, tensor: str, half: frozenset[str], reasons: dict[str, str]) -> str:
    node = graph.producer[tensor]
    if any(other.output[0] in half for other in (node, *graph.consumers[tensor])):
        return ""
    return reasons.get(title(node), "it prepares the pixels, in front of the first layer")


def largest_magnitudes(
    model: onnx.ModelProto, spec: ModelSpec, tensors: list[str], frames: Iterable[npt.NDArray[np.uint8]]
) -> tuple[int, dict[str, float]]:
    """How many frames there were, and the largest magnitude of each tensor on them."""
    reduced = reduce_tensors(model, tensors)
    names = [name for tensor in tensors for name in _reductions(tensor)]
    collector = Collector(reduced, spec, Placement((), tuple(names), ()), ["minmax"])
    images = 0
    for frame in frames:
        collector.add(frame)
        images += 1
    rule = RULES["minmax"]
    seen = {name: rule.amax(kept[rule.statistic]) for name, kept in collector.statistics.items()}
    return images, {tensor: max(seen[name] for name in _reductions(tensor)[:2]) for tensor in tensors}


def reduce_tensors(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    """The model with maximum, minimum and sum of magnitudes of each tensor beside it."""
    reduced = onnx.ModelProto()
    reduced.CopyFrom(model)
    nodes = list(reduced.graph.node)
    for tensor in tensors:
        # A maximum may pass over NaN; a sum does not, and makes the collector refuse it.
        for operator, name in zip(("ReduceMax", "ReduceMin", "ReduceL1"), _reductions(tensor), strict=True):
            nodes.append(helper.make_node(operator, [tensor], [name], name=name, keepdims=0))
    set_nodes(reduced, nodes)
    return reduced


def _reductions(tensor: str) -> tuple[str, str, str]:
    return f"{tensor}/largest", f"{tensor}/smallest", f"{tensor}/magnitudes"
