"""Lint of a quantised graph: every layer that TensorRT will run with a float side, and why.

It reads a finished Q/DQ graph, whoever made it, and takes nothing from `placement`, so that it finds the faults of
that too. What it asks for is what TensorRT fuses (developer guide, "Working with Quantized Types"):

- A layer is an INT8 kernel if its data input and its weights come straight from DequantizeLinear.
- Batch norm, residual sum and activation behind it belong to its kernel. A QuantizeLinear behind those makes the
  kernel write 8 bits; between them it parts the kernel.
- Operators that commute with rounding, as pooling by maximum, do not part a pair from its layer: TensorRT moves Q
  before them and DQ behind them.
- Of the two inputs of a residual sum the one that a layer gives stays float, the other is quantised.
- Concatenating is copying if inputs and output have one scale.
- Casts between float types part nothing: TensorRT-RTX puts them into the kernels beside them.

The reports of "INT8 slower than FP16" (TensorRT issues 993, 2976, 3197 and 3492) are each one of these, broken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from roadseg.runtime import CalibrationError
from roadseg.runtime.onnxfile import load_onnx

from .graph import WEIGHTED, Graph, attribute, lift_constants, title

Side = Literal["input", "weights", "bias", "output", "sum", "concat", "pair"]
"""Where a graph leaves INT8: at a layer's own tensors, at a residual sum, a concatenation, or in a Q/DQ pair."""
FOLDED = ("BatchNormalization", "Identity")
"""Operators that become part of the layer before them."""
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
"""Operators that a layer's kernel applies to its own result."""
COMMUTING = ("MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that give the same whether their input is rounded or their result."""
MOVING = ("Resize", "AveragePool", "Slice", "Pad", "Concat", "DepthToSpace")
"""Others that move or average values, so that their result fits the scale of their input."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One place where a graph leaves INT8."""

    node: str
    """Operator and name of the node."""
    side: Side
    cause: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class LintReport:
    """What a quantised model's layers will run as."""

    layers: int
    """Convolutions and matrix products."""
    int8_layers: int
    """How many of them multiply 8-bit numbers."""
    mac_share: float
    """Of the layers' multiply-accumulate operations, those of 8-bit numbers; in [0, 1]."""
    findings: tuple[Finding, ...]
    """In graph order."""

    def summary(self) -> dict[str, object]:
        """Figures, and a line for each finding."""
        lines = {f"{f.node} {f.side}": f"{f.cause}; {f.remedy}" for f in self.findings}
        figures = {"layers": self.layers, "int8_layers": self.int8_layers, "mac_share": self.mac_share}
        return {**figures, "findings": lines}


def lint(path: Path) -> LintReport:
    """Tell how a quantised model's layers will run.

    Raises:
        ArtifactError: if the file cannot be read or is no model.
        CalibrationError: if nothing in it is quantised.
    """
    model = load_onnx(path)
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise CalibrationError(
            f"{path} has no DequantizeLinear: nothing in it is quantised. "
            "Lint what `roadseg quantize --precision int8` wrote."
        )
    return lint_model(model)


def lint_model(model: onnx.ModelProto) -> LintReport:
    """Tell how the layers of a model in memory will run.

    Weights in Constant nodes become initialisers, and ONNX Runtime's own Q/DQ operators become those of ONNX.
    """
    lift_constants(model)
    standardise_pairs(model)
    graph = Graph(model)
    macs = graph.layer_macs()
    int8 = {name for name in macs if is_int8(graph, graph.producer[name])}
    findings = tuple(finding for node in graph.nodes for finding in _findings(graph, node, int8))
    share = sum(macs[name] for name in int8) / max(sum(macs.values()), 1)
    return LintReport(len(macs), len(int8), share, findings)


def standardise_pairs(model: onnx.ModelProto) -> None:
    """Make QuantizeLinear and DequantizeLinear of the domain com.microsoft those of ONNX, in place.

    They are the same but for types that ONNX did not have at first (onnxruntime/docs/ContribOperators.md), and
    shapes are inferred through ONNX's only. `quantize_static` writes them where `UseQDQContribOps` asks for them.
    """
    for node in model.graph.node:
        if node.domain == "com.microsoft" and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = ""


def is_int8(graph: Graph, node: NodeProto) -> bool:
    """Whether both factors of a layer come straight from DequantizeLinear."""
    data, weights = _factors(graph, node)
    return _data_pair(graph, data) is not None and _dequantizer(graph, weights) is not None


def _findings(graph: Graph, node: NodeProto, int8: set[str]) -> Iterator[Finding]:
    if node.op_type in WEIGHTED:
        yield from _factor_findings(graph, node)
        yield from _bias_findings(graph, node)
        if node.output[0] in int8:
            yield from _output_findings(graph, node)
    elif is_residual(graph, node):
        yield from _sum_findings(graph, node, int8)
    elif node.op_type == "Concat":
        yield from _concat_findings(graph, node)
    elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        yield from _pair_findings(graph, node)


def _factor_findings(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """Whether a layer's data and weights are quantised, and along the right axis."""
    names = _factors(graph, node)
    data, weights = _data_pair(graph, names[0]), _dequantizer(graph, names[1])
    if not _is_constant(graph, names[1]):
        yield from _product_findings(node, data, weights)
    elif weights is None and (data is None or _resamples(graph, node)):
        yield Finding(title(node), "input", *_why_float(graph, node))
    elif data is None:
        yield Finding(title(node), "input", *_what_parts(graph, names[0]))
    elif weights is None:
        cause = "its input is quantised, its weights are not"
        yield Finding(title(node), "weights", cause, "store them as int8 behind a DequantizeLinear")
    elif not _is_scalar(graph, weights.input[1]):
        axis, expected = _axis(graph, weights), _channel_axis(graph, node)
        if axis != expected:
            cause = (
                f"its weights have a scale for each index of axis {axis}, its output channels are axis {expected}"
            )
            yield Finding(title(node), "weights", cause, "take the scales along the output channels")


def _product_findings(node: NodeProto, data: NodeProto | None, weights: NodeProto | None) -> Iterator[Finding]:
    """Whether both factors of a layer without constants are quantised."""
    if data is None or weights is None:
        float_ones = "float" if data is None and weights is None else "one of them is float"
        cause = f"both its factors are computed, and {float_ones}"
        yield Finding(title(node), "input", cause, "quantise both if its time matters")


def _why_float(graph: Graph, node: NodeProto) -> tuple[str, str]:
    """Cause and remedy for a layer that is float altogether."""
    positions = graph.shape(node.output[0])[2:]
    if node.op_type in ("Conv", "ConvTranspose") and positions and all(size == 1 for size in positions):
        return "neither input nor weights are quantised; its map is a single position", "nothing is lost"
    if _resamples(graph, node):
        return "it resamples a map by a constant matrix in float", "nothing, unless its time matters"
    if node.op_type == "MatMul" and len(graph.shape(_factors(graph, node)[1])) > 2:
        return "it multiplies by a batch of constant matrices in float", "nothing, unless its time matters"
    return "neither its input nor its weights are quantised", "quantise both, or accept it in float"


def _what_parts(graph: Graph, tensor: str) -> tuple[str, str]:
    """Cause and remedy for a layer whose weights are quantised and whose input is not."""
    nearest = node = _source(graph, tensor)
    while node is not None and node.op_type in (*FOLDED, *ACTIVATIONS, *COMMUTING, *MOVING):
        if any(_dequantizer(graph, name) for name in node.input):
            assert nearest is not None
            return f"{title(node)} stands between its Q/DQ and it", f"quantise again behind {title(nearest)}"
        node = _source(graph, node.input[0])
    return "its weights are quantised, its input is not", f'quantise "{tensor}", behind batch norm and activation'


def _bias_findings(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    if node.op_type != "MatMul" and len(node.input) > 2 and _dequantizer(graph, node.input[2]):
        cause = "its bias goes through DequantizeLinear"
        yield Finding(title(node), "bias", cause, "leave it float; it is added to the 32-bit sum")


def _output_findings(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """What an INT8 layer's kernel writes as float, and what parts the kernel."""
    for activation in _parted_activations(graph, node.output[0]):
        cause = f"its Q/DQ stands before {title(activation)}, which becomes a kernel of its own"
        yield Finding(title(node), "output", cause, f"quantise behind {title(activation)} only")
    tensor = kernel_end(graph, node.output[0])
    everyone = list(_readers(graph, tensor))
    readers = [reader for reader in everyone if reader.op_type != "QuantizeLinear"]
    if tensor in graph.outputs:
        yield Finding(title(node), "output", f'its result is the output "{tensor}"', "nothing to do")
    elif readers:
        too = "too " if len(readers) < len(everyone) else ""
        kind = _float_type(graph, readers)
        cause = f"its result is read as {kind} {too}by {', '.join(dict.fromkeys(map(title, readers)))}"
        yield Finding(title(node), "output", cause, _output_remedy(graph, readers, bool(too)))
    elif len({_scale(graph, reader.input[1]) for reader in everyone}) > 1:
        cause = f'its result "{tensor}" is quantised with different scales'
        yield Finding(title(node), "output", cause, "quantise it once, and let all readers share the 8 bits")


def _readers(graph: Graph, tensor: str) -> Iterator[NodeProto]:
    """Who reads a tensor, behind casts and operators that commute with rounding."""
    for reader in _uncast_readers(graph, tensor):
        if reader.op_type in COMMUTING and reader.output[0] not in graph.outputs:
            yield from _readers(graph, reader.output[0])
        else:
            yield reader


def _float_type(graph: Graph, readers: list[NodeProto]) -> str:
    """As what operators read a float tensor: "float16" if all do, else "float"."""
    return "float16" if all(any(map(graph.is_half, reader.input)) for reader in readers) else "float"


def _output_remedy(graph: Graph, readers: list[NodeProto], also_quantized: bool) -> str:
    if also_quantized:
        return "let them read it behind the Q/DQ"
    if all(reader.op_type in MOVING and _is_quantized(graph, reader.output[0]) for reader in readers):
        return "if their time matters, quantise in front of them too, with the scale that follows them"
    return "nothing, unless the time of what follows matters"


def _is_quantized(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is read as 8 bits by whoever reads it."""
    readers = list(_readers(graph, tensor))
    return bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)


def kernel_end(graph: Graph, tensor: str, active: bool = False) -> str:
    """What the kernel of a layer that gives `tensor` writes, with batch norm, sum and activation in it.

    Args:
        graph: of the quantised model.
        tensor: a layer's result.
        active: whether the activation is behind us.
    """
    readers = graph.consumers[tensor]
    if tensor in graph.outputs or len(readers) != 1 or active:
        return tensor
    (reader,) = readers
    if reader.op_type in (*FOLDED, *ACTIVATIONS) or is_residual(graph, reader) or _adds_bias(graph, reader):
        return kernel_end(graph, reader.output[0], reader.op_type in ACTIVATIONS)
    return tensor


def is_residual(graph: Graph, node: NodeProto) -> bool:
    """Whether a node adds two computed tensors of one shape."""
    first, second = node.input[0], node.input[-1]
    same = node.op_type == "Add" and graph.shape(first) == graph.shape(second)
    return same and not (_is_constant(graph, first) or _is_constant(graph, second))


def _adds_bias(graph: Graph, node: NodeProto) -> bool:
    return node.op_type == "Add" and any(_is_constant(graph, name) for name in node.input)


def _parted_activations(graph: Graph, tensor: str) -> Iterator[NodeProto]:
    """Batch norm or activation that reads a layer's result through Q/DQ of its own."""
    for quantizer in _uncast_readers(graph, tensor):
        if quantizer.op_type == "QuantizeLinear":
            pairs = graph.consumers[quantizer.output[0]]
            readers = [reader for pair in pairs for reader in _uncast_readers(graph, pair.output[0])]
            if len(readers) == 1 and readers[0].op_type in FOLDED + ACTIVATIONS:
                yield readers[0]


def _sum_findings(graph: Graph, node: NodeProto, int8: set[str]) -> Iterator[Finding]:
    """Whether a sum that could be part of an INT8 layer's kernel is."""
    quantized = [name for name in node.input if _dequantizer(graph, name)]
    layers = [layer for name in node.input if (layer := _layer_behind(graph, name, int8))]
    if layers and len(quantized) == 2:
        cause = f"both its inputs are quantised, so that {title(layers[-1])} cannot take it in"
        yield Finding(title(node), "sum", cause, "leave the result of that layer float up to the sum")
    elif layers and not quantized:
        cause = f"neither of its inputs is quantised, so that {title(layers[-1])} cannot take it in as INT8"
        yield Finding(title(node), "sum", cause, "quantise the other input")


def _layer_behind(graph: Graph, tensor: str, int8: set[str]) -> NodeProto | None:
    """The INT8 layer whose result one operand of a sum is and nobody else's, through Q/DQ or not."""
    if len(graph.consumers[tensor]) != 1 or tensor in graph.outputs:
        return None
    node = graph.producer.get(tensor)
    if node is None or tensor in int8:
        return node
    passes = node.op_type in (*FOLDED, "DequantizeLinear", "QuantizeLinear") or _is_float_cast(node)
    return _layer_behind(graph, node.input[0], int8) if passes else None


def _concat_findings(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """Whether a concatenation in front of a QuantizeLinear copies 8 bits."""
    readers = _uncast_readers(graph, node.output[0])
    behind = {_scale(graph, reader.input[1]) for reader in readers if reader.op_type == "QuantizeLinear"}
    if not behind:
        return
    computed = [name for name in node.input if not _is_constant(graph, name)]
    pairs = [_dequantizer(graph, name) for name in computed]
    floats = [name for name, pair in zip(computed, pairs, strict=True) if pair is None]
    scales = behind | {_scale(graph, pair.input[1]) for pair in pairs if pair is not None}
    if floats:
        cause = f"{len(floats)} of its {len(computed)} inputs are float: {', '.join(floats)}"
        yield Finding(title(node), "concat", cause, "quantise all of them with the scale of its result")
    elif len(scales) > 1:
        cause = f"its inputs and its result have {len(scales)} different scales, and each input is scaled anew"
        yield Finding(title(node), "concat", cause, "give inputs and result one scale, that of the largest range")


def _pair_findings(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """What TensorRT refuses or cannot fuse of a QuantizeLinear or DequantizeLinear by itself."""
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if len(node.input) < 3 and node.op_type == "QuantizeLinear":
        yield Finding(
            title(node), "pair", "it gives uint8, for want of a zero point", "give it an int8 zero point of 0"
        )
    elif zero is not None and (zero.data_type == TensorProto.UINT8 or numpy_helper.to_array(zero).any()):
        cause = "its zero point is other than 0, or unsigned"
        yield Finding(title(node), "pair", cause, "quantise symmetrically: int8, zero point 0")
    if not _is_constant(graph, node.input[0]) and not _is_scalar(graph, node.input[1]):
        cause = "a computed tensor has a scale for each channel"
        yield Finding(title(node), "pair", cause, "give it one scale; only weights have one for each channel")
    if node.op_type == "QuantizeLinear":
        others = [r for r in graph.consumers[node.output[0]] if r.op_type != "DequantizeLinear"]
        if others:
            cause = f"{', '.join(title(reader) for reader in others)} reads its 8 bits without DequantizeLinear"
            yield Finding(title(node), "pair", cause, "put a DequantizeLinear between them")
    elif (source := graph.producer.get(node.input[0])) is not None and source.op_type != "QuantizeLinear":
        cause = f"it reads {title(source)} and not a QuantizeLinear"
        yield Finding(title(node), "pair", cause, "put both halves of the pair on the same tensor")


def _factors(graph: Graph, node: NodeProto) -> tuple[str, str]:
    """A layer's data and its weights, which a matrix product may have first, quantised or not."""
    first, second = node.input[:2]
    turned = node.op_type == "MatMul" and _is_constant(graph, first) and not _is_constant(graph, second)
    return (second, first) if turned else (first, second)


def _resamples(graph: Graph, node: NodeProto) -> bool:
    """Whether a layer multiplies a map by a constant matrix along its rows or columns."""
    return node.op_type == "MatMul" and len(graph.shape(node.output[0])) > 3


def _data_pair(graph: Graph, tensor: str) -> NodeProto | None:
    """The DequantizeLinear of a layer's data, in front of operators that commute with rounding."""
    source = _source(graph, tensor)
    while source is not None and source.op_type in COMMUTING:
        source = _source(graph, source.input[0])
    return source if source is not None and source.op_type == "DequantizeLinear" else None


def _dequantizer(graph: Graph, tensor: str) -> NodeProto | None:
    """The DequantizeLinear that gives a tensor."""
    node = _source(graph, tensor)
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _source(graph: Graph, tensor: str) -> NodeProto | None:
    """What gives a tensor, in front of casts between float types."""
    return graph.producer.get(_uncast(graph, tensor))


def _uncast(graph: Graph, tensor: str) -> str:
    """The tensor in front of casts between float types."""
    node = graph.producer.get(tensor)
    return _uncast(graph, node.input[0]) if node is not None and _is_float_cast(node) else tensor


def _uncast_readers(graph: Graph, tensor: str) -> Iterator[NodeProto]:
    """Who reads a tensor, behind casts between float types."""
    for reader in graph.consumers[tensor]:
        passes = _is_float_cast(reader) and reader.output[0] not in graph.outputs
        yield from _uncast_readers(graph, reader.output[0]) if passes else (reader,)


def _is_float_cast(node: NodeProto) -> bool:
    return node.op_type == "Cast" and attribute(node, "to", 0) in (TensorProto.FLOAT, TensorProto.FLOAT16)


def _is_constant(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is an initialiser, quantised or not."""
    node = _source(graph, tensor)
    if node is None:
        return _uncast(graph, tensor) in graph.constants
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") and _is_constant(graph, node.input[0])


def _is_scalar(graph: Graph, scale: str) -> bool:
    return graph.elements(scale) == 1


def _scale(graph: Graph, name: str) -> bytes | str:
    """What tells a scale from others: its value, or its name where it is computed."""
    tensor = graph.constants.get(name)
    return name if tensor is None else np.ravel(numpy_helper.to_array(tensor)).tobytes()


def _axis(graph: Graph, node: NodeProto) -> int:
    return attribute(node, "axis", 1) % len(graph.shape(node.input[0]))


def _channel_axis(graph: Graph, node: NodeProto) -> int:
    """Of the output channels in a layer's weights."""
    if node.op_type == "Gemm":
        return 1 - attribute(node, "transB", 0)
    if node.op_type == "MatMul":
        weights = _factors(graph, node)[1]
        return len(graph.shape(weights)) - (2 if weights == node.input[0] else 1)
    return int(node.op_type == "ConvTranspose")
