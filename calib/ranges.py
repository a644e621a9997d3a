"""Collecting ranges: frames run through the model one by one, only statistics stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from roadseg.runtime import CalibrationError, ModelSpec, require
from roadseg.runtime.pixels import normalise

from .cache import Ranges
from .graph import drop_unused, set_nodes
from .histogram import largest_magnitude
from .methods import RULES, Method
from .placement import Placement


class Collector:
    """Runs frames through a model and gathers what `methods` need to know of some of its tensors.

    Memory holds the tensors of one frame, however many come.
    """

    def __init__(
        self, model: onnx.ModelProto, spec: ModelSpec, placement: Placement, methods: Sequence[Method]
    ) -> None:
        self.spec = spec
        self.placement = placement
        # Methods that look at the same share it.
        kinds = dict.fromkeys(RULES[method].statistic for method in methods)
        self.statistics = {name: {kind: kind() for kind in kinds} for name in placement.activations}
        self.input = model.graph.input[0]
        self.batch = batch_of(model)
        self.session = open_session(expose(model, placement.activations))

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Take in one frame, `(height, width, 3)` uint8 RGB of the model's size.

        Raises:
            CalibrationError: if a tensor is not finite.
        """
        tensors = self.session.run(None, {self.input.name: feed(frame, self.spec, self.batch)})
        for name, values in zip(self.statistics, tensors, strict=True):
            self._count(name, values)

    def ranges(self, method: Method) -> Ranges:
        """The ranges of all frames so far; tensors with a common scale have a common range."""
        rule = RULES[method]
        amax = {name: rule.amax(seen[rule.statistic]) for name, seen in self.statistics.items()}
        for group in self.placement.groups:
            amax |= dict.fromkeys(sorted(group), max(amax[name] for name in group))
        # Any scale represents a tensor of zeros, but it has to be a positive number.
        return Ranges({name: amax[name] or 1.0 for name in self.placement.activations}, rule.calibrator)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that was gathered, for `restore`: an array for each thing that a statistic keeps, a row a tensor."""
        rows = [
            {
                f"{kind.__name__}.{field}": value
                for kind, seen in kinds.items()
                for field, value in vars(seen).items()
            }
            for kinds in self.statistics.values()
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` gave, in a collector of the same model and methods."""
        for row, kinds in enumerate(self.statistics.values()):
            for kind, seen in kinds.items():
                for field in list(vars(seen)):
                    value = state[f"{kind.__name__}.{field}"][row]
                    setattr(seen, field, value.copy() if value.ndim else value.item())

    def _count(self, name: str, values: npt.NDArray[np.float32]) -> None:
        if not math.isfinite(largest_magnitude(values)):
            raise CalibrationError(
                f'the tensor "{name}" holds infinite values or NaN on a calibration image; '
                "check the network's weights."
            )
        for statistic in self.statistics[name].values():
            statistic.add(values)


def batch_of(model: onnx.ModelProto) -> int:
    """How many frames a model is given at once; 1 where it leaves that open."""
    return model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1


def feed(frame: npt.NDArray[np.uint8], spec: ModelSpec, batch: int) -> npt.NDArray[Any]:
    """What a model takes for one frame of its size, repeated to fill a batch."""
    frames = frame[None]
    spec.check_frames(frames)
    fed = frames if spec.io == "frame" else normalise(frames, spec)
    return np.repeat(fed, batch, axis=0)


def expose(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The part of a model that computes `tensors`, which become its outputs, in this order."""
    nodes = list(model.graph.node)
    outputs = []
    for name in tensors:
        # ONNX Runtime does not take an input for an output, so every tensor leaves through a node of its own.
        nodes.append(helper.make_node("Identity", [name], [f"{name}/seen"]))
        outputs.append(helper.make_tensor_value_info(f"{name}/seen", onnx.TensorProto.FLOAT, None))
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(outputs)
    set_nodes(part, nodes_towards(nodes, {value.name for value in outputs}))
    drop_unused(part)
    return part


def nodes_towards(nodes: Sequence[onnx.NodeProto], tensors: set[str]) -> list[onnx.NodeProto]:
    """The nodes that `tensors` depend on, in the same order."""
    needed = set(tensors)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def open_session(model: onnx.ModelProto) -> Any:
    """ONNX Runtime on the CPU."""
    ort = require("onnxruntime", "collecting ranges")
    options = ort.SessionOptions()
    options.use_deterministic_compute = True
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
