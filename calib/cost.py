"""How long a typed model takes on a GPU, estimated from its graph: no GPU needed, and none measured.

The graph is cut into kernels as TensorRT fuses them: a layer or any other operator, with the pointwise operators
behind it. A kernel takes the longer of what its multiply-adds take at the GPU's dense peak and what its inputs,
weights and outputs take at the bandwidth of its memory, each tensor with the bytes that its type has there: one
behind QuantizeLinear, two as float16. Real kernels are slower than that, by a factor that differs less between
precisions than between GPUs; what caches hold makes them faster. So it is for comparing graphs, not for promises.
benchmarks/results/published/cost.md sets it beside published latencies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto
from onnx.inliner import inline_local_functions

from roadseg.runtime.onnxfile import load_onnx

from .gpus import Gpu, Type
from .graph import WEIGHTED, Graph, attribute, lift_constants

LAUNCH_US = 2.0
"""Between two kernels of a CUDA graph."""
BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
    TensorProto.INT64: 4,  # TensorRT's indices
}
TYPES: dict[int, Type] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Operators that move nothing."""
# fmt: off
POINTWISE = frozenset((
    "Abs", "Add", "And", "BatchNormalization", "Cast", "Ceil", "Clip", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuantizeLinear",
    "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Where",
))
# fmt: on
"""Operators that become part of the kernel that gives what they read."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What one kernel does for one frame."""

    title: str
    """First output of the operator it begins with."""
    macs: int
    """Multiply-adds, of weights and of products of activations."""
    kind: Type
    """What they multiply."""
    vector: bool
    """Whether they run on CUDA cores: depthwise convolutions do."""
    bytes: int
    """Read and written."""

    def seconds(self, gpu: Gpu) -> float:
        """At the GPU's peaks."""
        arithmetic = self.macs / gpu.mac_per_s(self.kind, self.vector)
        return max(arithmetic, self.bytes / (gpu.bandwidth_gb_s * 1e9)) + LAUNCH_US * 1e-6


def estimate_ms(path: Path, gpu: Gpu) -> float:
    """Milliseconds for one frame, from pixels on the GPU to labels on the GPU.

    Raises:
        ArtifactError: if the file cannot be read or is no model.
        CalibrationError: if its types or shapes contradict each other.
    """
    return 1e3 * sum(kernel.seconds(gpu) for kernel in kernels(load_onnx(path)))


def layer_seconds(path: Path, gpu: Gpu) -> dict[str, float]:
    """Seconds of each kernel, by the first output of the operator that it begins with; errors as `estimate_ms`."""
    return {kernel.title: kernel.seconds(gpu) for kernel in kernels(load_onnx(path))}


def kernels(model: onnx.ModelProto) -> list[Kernel]:
    """What TensorRT would launch for a typed model, in graph order."""
    model = inline_local_functions(model)
    lift_constants(model)
    return Cutting(Graph(model)).kernels()


class Cutting:
    """A typed graph cut into kernels."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constant = set(graph.constants)
        """Tensors that are known before the first frame."""
        self.source: dict[str, str] = {}
        """For what is read without a kernel of its own: the tensor that lies in memory."""
        self.home: dict[str, int] = {}
        """Number of the kernel that gives a tensor."""
        self.members: list[list[NodeProto]] = []
        for node in graph.nodes:
            self._assign(node)

    def kernels(self) -> list[Kernel]:
        """In graph order."""
        return [self._kernel(i, nodes) for i, nodes in enumerate(self.members)]

    def stored(self, tensor: str) -> str:
        """The tensor in memory that somebody reads who reads this one."""
        while tensor in self.source:
            tensor = self.source[tensor]
        return tensor

    def _assign(self, node: NodeProto) -> None:
        inputs = [name for name in node.input if name]
        if all(name in self.constant for name in inputs):
            self.constant.update(node.output)
            if node.op_type == "DequantizeLinear":
                self.source[node.output[0]] = inputs[0]
        elif node.op_type == "DequantizeLinear" or node.op_type in VIEWS or self._casts_a_read(node):
            self.source[node.output[0]] = inputs[0]
        else:
            number = self._joined(node, inputs)
            if number is None:
                number = len(self.members)
                self.members.append([])
            self.members[number].append(node)
            self.home.update(dict.fromkeys(node.output, number))

    def _casts_a_read(self, node: NodeProto) -> bool:
        """Whether a cast only changes how 8 bits are read."""
        producer = self.graph.producer.get(node.input[0])
        return node.op_type == "Cast" and producer is not None and producer.op_type == "DequantizeLinear"

    def _joined(self, node: NodeProto, inputs: Iterable[str]) -> int | None:
        """The kernel that a pointwise operator joins: that of its latest input, if it alone reads that."""
        if node.op_type not in POINTWISE:
            return None
        homes = [(self.home[name], name) for name in inputs if name in self.home]
        if not homes:
            return None
        number, latest = max(homes)
        alone = len(self.graph.consumers[latest]) == 1 and latest not in self.graph.outputs
        return number if alone or node.op_type == "QuantizeLinear" else None

    def _kernel(self, number: int, nodes: list[NodeProto]) -> Kernel:
        first = nodes[0]
        weighted = first.op_type in WEIGHTED
        return Kernel(
            title=first.output[0],
            macs=self.graph.macs(first) if weighted else 0,
            kind=self._kind(first),
            vector=weighted and _is_depthwise(self.graph, first),
            bytes=self._read_bytes(number, nodes) + self._written_bytes(number, nodes),
        )

    def _kind(self, node: NodeProto) -> Type:
        """What a layer multiplies: 8 bits if both factors lie in memory so."""
        if node.op_type not in WEIGHTED:
            return "fp32"
        types = [self.graph.type_of(self.stored(name)) for name in node.input[:2]]
        if all(kind == TensorProto.INT8 for kind in types):
            return "int8"
        return TYPES.get(self.graph.type_of(node.input[0]), "fp32")

    def _read_bytes(self, number: int, nodes: list[NodeProto]) -> int:
        read = {self.stored(name) for node in nodes for name in node.input if name}
        return sum(self._bytes(name) for name in read if self.home.get(name) != number)

    def _written_bytes(self, number: int, nodes: list[NodeProto]) -> int:
        made = [name for node in nodes for name in node.output]
        return sum(self._bytes(name) for name in made if self._is_read_elsewhere(name, number))

    def _is_read_elsewhere(self, tensor: str, number: int) -> bool:
        """Whether a tensor leaves the kernel that gives it; what is read through a view leaves as itself."""
        if tensor in self.graph.outputs:
            return True
        for reader in self.graph.consumers[tensor]:
            result = reader.output[0]
            if result in self.source:
                if result in self.graph.outputs or self._is_read_elsewhere(result, number):
                    return True
            elif self.home.get(result) != number:
                return True
        return False

    def _bytes(self, tensor: str) -> int:
        return self.graph.elements(tensor) * BYTES.get(self.graph.type_of(tensor), 4)


def _is_depthwise(graph: Graph, node: NodeProto) -> bool:
    """Whether each output channel reads one or two channels, which leaves matrix units idle."""
    return node.op_type == "Conv" and attribute(node, "group", 1) > 1 and (graph.shape(node.input[1])[1] or 1) <= 2
