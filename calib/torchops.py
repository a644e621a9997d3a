"""ONNX operators in PyTorch, so that a model's weights can be tuned: those of networks for road scenes.

Each takes the attributes of a node and its inputs, None where one is left out. What they do is as ONNX's operator
definitions say (https://onnx.ai/onnx/operators), and as ONNX Runtime does it where those leave a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from roadseg.runtime import CalibrationError

Attributes = Mapping[str, Any]
"""Of a node, by name, as Python values."""
Inputs = Sequence[Any]
"""Tensors, None where one is left out."""
Operator = Callable[[Attributes, Inputs], Any]
"""Gives a tensor, or a sequence of them where a node has several outputs."""

TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def refuse_unless(known: bool, what: str) -> None:
    """Raise CalibrationError where a node asks for something that is not done here."""
    if not known:
        raise CalibrationError(f"{what} cannot be fine-tuned; calibrate and quantize the model as it is.")


def given(inputs: Inputs, index: int) -> Any:
    """An input that may be left out."""
    return inputs[index] if len(inputs) > index else None


def numbers(tensor: Tensor) -> list[Any]:
    """The values of a tensor that describes a shape."""
    return list(tensor.reshape(-1).tolist())


def convolve(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Conv in one to three dimensions."""
    x, weights, bias = inputs[0], inputs[1], given(inputs, 2)
    rank = weights.ndim - 2
    x, padding = padded(x, attributes, rank, 0.0)
    run = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    ones = [1] * rank
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    result: Tensor = run(x, weights, bias, strides, padding, dilations, attributes.get("group", 1))
    return result


def convolve_transposed(attributes: Attributes, inputs: Inputs) -> Tensor:
    """ConvTranspose in two dimensions; a border on one side more than on the other is cut off behind."""
    x, weights, bias = inputs[0], inputs[1], given(inputs, 2)
    explicit = attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and "output_shape" not in attributes
    refuse_unless(
        explicit and weights.ndim == 4, "a ConvTranspose with automatic borders or not in two dimensions"
    )
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    common = [min(top, bottom), min(left, right)]
    full = F.conv_transpose2d(
        x,
        weights,
        bias,
        attributes.get("strides", [1, 1]),
        common,
        attributes.get("output_padding", [0, 0]),
        attributes.get("group", 1),
        attributes.get("dilations", [1, 1]),
    )
    rows, columns = full.shape[2] - (bottom - common[0]), full.shape[3] - (right - common[1])
    return full[:, :, top - common[0] : rows, left - common[1] : columns]


def padded(x: Tensor, attributes: Attributes, rank: int, value: float) -> tuple[Tensor, list[int]]:
    """A map and the border that is left to the operator: none where sides differ, for then it is added here."""
    refuse_unless(
        attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"), "an operator with automatic borders"
    )
    pads = attributes.get("pads", [0] * 2 * rank)
    before, after = pads[:rank], pads[rank:]
    if before == after:
        return x, list(before)
    return F.pad(x, interleaved(before, after), value=value), [0] * rank


def interleaved(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Borders in PyTorch's order, last axis first.

    >>> interleaved([1, 2], [3, 4])
    [2, 4, 1, 3]
    """
    return [size for pair in list(zip(before, after, strict=True))[::-1] for size in pair]


def multiply_matrices(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Gemm."""
    a, b, c = inputs[0], inputs[1], given(inputs, 2)
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    product: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def max_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    """MaxPool in two dimensions, without its indices."""
    kernel = attributes["kernel_shape"]
    refuse_unless(len(kernel) == 2 and not attributes.get("storage_order", 0), "a MaxPool that is not of maps")
    x, padding = padded(inputs[0], attributes, 2, float("-inf"))
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return F.max_pool2d(x, kernel, strides, padding, dilations, bool(attributes.get("ceil_mode", 0)))


def average_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    """AveragePool in two dimensions."""
    kernel, pads = attributes["kernel_shape"], attributes.get("pads", [0, 0, 0, 0])
    counts_border = bool(attributes.get("count_include_pad", 0))
    plain = pads[:2] == pads[2:] and set(attributes.get("dilations", [1])) == {1}
    refuse_unless(len(kernel) == 2 and plain, "an AveragePool that is dilated, one-sided or not of maps")
    x, padding = padded(inputs[0], attributes, 2, 0.0)
    ceil = bool(attributes.get("ceil_mode", 0))
    return F.avg_pool2d(x, kernel, attributes.get("strides", [1, 1]), padding, ceil, counts_border)


def reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """A Reduce operator, whose axes are an attribute before opset 18 and an input since."""

    def reduce(attributes: Attributes, inputs: Inputs) -> Tensor:
        x, given_axes = inputs[0], given(inputs, 1)
        axes = numbers(given_axes) if given_axes is not None else list(attributes.get("axes", ()))
        if not axes and attributes.get("noop_with_empty_axes", 0):
            answer: Tensor = x
            return answer
        return function(x, axes or list(range(x.ndim)), bool(attributes.get("keepdims", 1)))

    return reduce


def resize(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Resize by nearest neighbours or linearly, one axis after the other."""
    x, scales, sizes = inputs[0], given(inputs, 2), given(inputs, 3)
    mode = attributes.get("mode", b"nearest").decode()
    transformation = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = attributes.get("nearest_mode", b"round_prefer_floor").decode()
    plain = not any(attributes.get(name, 0) for name in ("antialias", "exclude_outside"))
    plain &= attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    refuse_unless(plain and mode in ("nearest", "linear"), f"a Resize of mode {mode}, or with extras,")
    axes = attributes.get("axes", list(range(x.ndim)))
    by_sizes = sizes is not None and sizes.numel() > 0
    for axis, number in zip(axes, numbers(sizes if by_sizes else scales), strict=True):
        length = x.shape[axis]
        out = int(number) if by_sizes else int(np.floor(length * number))
        scale = out / length if by_sizes else float(number)
        if (out, scale) == (length, 1.0):
            continue
        at = coordinates(length, out, scale, transformation)
        if mode == "nearest":
            x = x.index_select(axis, torch.from_numpy(nearest(at, length, rounding)).to(x.device))
        else:
            x = (x.movedim(axis, -1) @ torch.tensor(linear(at, length), device=x.device)).movedim(-1, axis)
    answer: Tensor = x
    return answer


def coordinates(length: int, out: int, scale: float, transformation: str) -> npt.NDArray[np.float32]:
    """Where each of `out` samples lies among `length` samples, in float32 as ONNX Runtime has it."""
    x, factor = np.arange(out, dtype=np.float32), np.float32(scale)
    if transformation == "align_corners":
        return np.asarray(x * np.float32(length - 1) / np.float32(max(out - 1, 1)))
    if transformation == "asymmetric":
        return np.asarray(x / factor)
    if transformation == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, np.float32)
    refuse_unless(
        transformation in ("half_pixel", "pytorch_half_pixel"), f"a Resize by coordinates {transformation}"
    )
    return np.asarray((x + np.float32(0.5)) / factor - np.float32(0.5))


def nearest(at: npt.NDArray[np.float32], length: int, rounding: str) -> npt.NDArray[np.int64]:
    """Indices of the samples nearest to coordinates."""
    rules: dict[str, Callable[[Any], Any]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    return np.asarray(np.clip(rules[rounding](at), 0, length - 1), np.int64)


def linear(at: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    """The matrix `(length, samples)` that interpolates linearly at coordinates; the border is continued."""
    inside = np.clip(at, 0, length - 1)
    low = np.minimum(np.floor(inside).astype(np.int64), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    part = (inside - low).astype(np.float32)
    matrix = np.zeros((length, len(at)), np.float32)
    samples = np.arange(len(at))
    matrix[low, samples] += 1 - part
    matrix[high, samples] += part
    return matrix


def cut(_: Attributes, inputs: Inputs) -> Tensor:
    """Slice."""
    x, starts, ends = inputs[0], numbers(inputs[1]), numbers(inputs[2])
    axes = numbers(inputs[3]) if given(inputs, 3) is not None else range(len(starts))
    steps = numbers(inputs[4]) if given(inputs, 4) is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        kept = range(x.shape[axis])[start:end:step]
        x = x.index_select(axis, torch.tensor(list(kept), dtype=torch.int64, device=x.device))
    answer: Tensor = x
    return answer


def gather(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Gather, which counts negative indices from the end."""
    x, indices = inputs
    axis = attributes.get("axis", 0) % x.ndim
    positive = torch.where(indices < 0, indices + x.shape[axis], indices).long()
    taken = x.index_select(axis, positive.reshape(-1))
    result: Tensor = taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return result


def gather_slices(attributes: Attributes, inputs: Inputs) -> Tensor:
    """GatherND, whose last axis of indices says where in the first axes."""
    refuse_unless(not attributes.get("batch_dims", 0), "a GatherND by batches")
    result: Tensor = inputs[0][tuple(inputs[1].unbind(-1))]
    return result


def reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Reshape; a 0 keeps a dimension unless it is allowed to mean none."""
    x, shape = inputs[0], numbers(inputs[1])
    if not attributes.get("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    result: Tensor = x.reshape(shape)
    return result


def flatten(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Flatten to a matrix."""
    axis = attributes.get("axis", 1)
    rows = int(np.prod(inputs[0].shape[: axis if axis >= 0 else inputs[0].ndim + axis], dtype=np.int64))
    result: Tensor = inputs[0].reshape(rows, -1)
    return result


def expand(_: Attributes, inputs: Inputs) -> Tensor:
    """Expand, which broadcasts both ways."""
    x, shape = inputs[0], numbers(inputs[1])
    result: Tensor = x.expand(np.broadcast_shapes(tuple(x.shape), tuple(shape)))
    return result


def squeeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Squeeze of the axes given, or of all of one element."""
    axes = given(inputs, 1)
    chosen = numbers(axes) if axes is not None else attributes.get("axes")
    x: Tensor = inputs[0]
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Unsqueeze, whose axes count those that are added."""
    x: Tensor = inputs[0]
    axes = numbers(inputs[1]) if given(inputs, 1) is not None else attributes["axes"]
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def split(attributes: Attributes, inputs: Inputs) -> Any:
    """Split into parts of given sizes, or into a number of equal ones, the last of which may be smaller."""
    x, axis = inputs[0], attributes.get("axis", 0)
    if given(inputs, 1) is not None:
        return x.split(numbers(inputs[1]), axis)
    parts = attributes.get("num_outputs", attributes["outputs"])
    return x.split(-(-x.shape[axis] // parts), axis)


def pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Pad with a constant, which may be negative; or by reflection, or the border, of maps."""
    x, pads, value, axes = inputs[0], numbers(inputs[1]), given(inputs, 2), given(inputs, 3)
    mode = attributes.get("mode", b"constant").decode()
    chosen = [axis % x.ndim for axis in (numbers(axes) if axes is not None else range(x.ndim))]
    before, after = [0] * x.ndim, [0] * x.ndim
    for axis, low, high in zip(chosen, pads[: len(chosen)], pads[len(chosen) :], strict=True):
        before[axis], after[axis] = low, high
    if mode == "constant":
        return F.pad(x, interleaved(before, after), value=0 if value is None else value.item())
    refuse_unless(
        mode in ("reflect", "edge") and x.ndim == 4 and not any(before[:2] + after[:2]), f"a Pad by {mode}"
    )
    return F.pad(x, interleaved(before[2:], after[2:]), "reflect" if mode == "reflect" else "replicate")


def batch_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """BatchNormalization as in inference."""
    refuse_unless(not attributes.get("training_mode", 0), "a BatchNormalization in training mode")
    x, scale, shift, mean, variance = inputs
    return F.batch_norm(x, mean, variance, scale, shift, eps=attributes.get("epsilon", 1e-5))


def layer_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """LayerNormalization, its first output alone."""
    x, axis = inputs[0], attributes.get("axis", -1)
    return F.layer_norm(x, x.shape[axis:], inputs[1], given(inputs, 2), attributes.get("epsilon", 1e-5))


def instance_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    """InstanceNormalization."""
    x, scale, shift = inputs
    return F.instance_norm(x, weight=scale, bias=shift, eps=attributes.get("epsilon", 1e-5))


def remainder(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Mod, with the sign of the divisor or, by `fmod`, of what is divided."""
    function = torch.fmod if attributes.get("fmod", 0) else torch.remainder
    return function(inputs[0], inputs[1])


def divide(_: Attributes, inputs: Inputs) -> Tensor:
    """Div, which cuts off the rest of integers."""
    a, b = inputs
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def clip(_: Attributes, inputs: Inputs) -> Tensor:
    """Clip by limits of which either may be missing."""
    low, high = given(inputs, 1), given(inputs, 2)
    if low is None and high is None:
        answer: Tensor = inputs[0]
        return answer
    return torch.clamp(inputs[0], low, high)


def prelu(_: Attributes, inputs: Inputs) -> Tensor:
    """PRelu, whose slope is broadcast."""
    x, slope = inputs
    return torch.where(x < 0, x * slope, x)


def arg_max(attributes: Attributes, inputs: Inputs) -> Tensor:
    """ArgMax; the first of several that are largest."""
    refuse_unless(not attributes.get("select_last_index", 0), "an ArgMax that takes the last of several")
    return torch.argmax(inputs[0], attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))


def cast(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Cast."""
    refuse_unless(attributes["to"] in TYPES, f"a Cast to {TensorProto.DataType.Name(attributes['to'])}")
    result: Tensor = inputs[0].to(TYPES[attributes["to"]])
    return result


def shape(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Shape."""
    return torch.tensor(inputs[0].shape[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


def constant_of_shape(attributes: Attributes, inputs: Inputs) -> Tensor:
    """ConstantOfShape."""
    value = attributes.get("value", torch.zeros(1))
    return torch.full(numbers(inputs[0]), value.item(), dtype=value.dtype)


def constant(attributes: Attributes, _: Inputs) -> Tensor:
    """Constant, of numbers; those that hold a tensor are initialisers by then."""
    ((name, value),) = ((k, v) for k, v in attributes.items() if k.startswith("value"))
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=_type_of(name))


def depth_to_space(attributes: Attributes, inputs: Inputs) -> Tensor:
    """DepthToSpace, both orders."""
    x, block = inputs[0], attributes["blocksize"]
    n, c, h, w = x.shape
    if attributes.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, block)
    blocks = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    result: Tensor = blocks.reshape(n, c // block**2, h * block, w * block)
    return result


def transpose(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Transpose; without an order the axes are reversed."""
    x: Tensor = inputs[0]
    return x.permute(attributes.get("perm", tuple(range(x.ndim))[::-1]))


@lru_cache(maxsize=1)
def operators() -> dict[str, Operator]:
    """Every operator that is known, by its name in ONNX."""
    simple: dict[str, Callable[..., Any]] = {
        "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil, "Cos": torch.cos,
        "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Greater": torch.gt,
        "GreaterOrEqual": torch.ge, "HardSwish": F.hardswish, "Identity": lambda x: x, "Less": torch.lt,
        "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Mish": F.mish, "Mul": torch.mul,
        "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or, "Pow": torch.pow,
        "Reciprocal": torch.reciprocal, "Relu": F.relu, "Round": torch.round, "Sigmoid": torch.sigmoid,
        "Sign": torch.sign, "Sin": torch.sin, "Softplus": F.softplus, "Sqrt": torch.sqrt, "Sub": torch.sub,
        "Tanh": torch.tanh, "Where": torch.where,
        "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
        "Range": lambda start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype),
        "Tile": lambda x, times: x.repeat(numbers(times)),
    }  # fmt: skip
    return {name: plain(function) for name, function in simple.items()} | {
        "ArgMax": arg_max,
        "AveragePool": average_pool,
        "BatchNormalization": batch_norm,
        "Cast": cast,
        "CastLike": lambda _, x: x[0].to(x[1].dtype),
        "Clip": clip,
        "Concat": lambda a, x: torch.cat(list(x), a["axis"]),
        "Constant": constant,
        "ConstantOfShape": constant_of_shape,
        "Conv": convolve,
        "ConvTranspose": convolve_transposed,
        "DepthToSpace": depth_to_space,
        "Div": divide,
        "Dropout": lambda _, x: x[0],
        "Einsum": lambda a, x: torch.einsum(a["equation"].decode(), *x),
        "Elu": lambda a, x: F.elu(x[0], a.get("alpha", 1.0)),
        "Expand": expand,
        "Flatten": flatten,
        "Gather": gather,
        "GatherElements": lambda a, x: torch.gather(x[0], a.get("axis", 0), x[1]),
        "GatherND": gather_slices,
        "Gelu": lambda a, x: F.gelu(x[0], approximate=a.get("approximate", b"none").decode()),
        "Gemm": multiply_matrices,
        "HardSigmoid": lambda a, x: torch.clamp(a.get("alpha", 0.2) * x[0] + a.get("beta", 0.5), 0, 1),
        "InstanceNormalization": instance_norm,
        "LayerNormalization": layer_norm,
        "LeakyRelu": lambda a, x: F.leaky_relu(x[0], a.get("alpha", 0.01)),
        "LogSoftmax": lambda a, x: F.log_softmax(x[0], a.get("axis", -1)),
        "Max": lambda _, x: fold(torch.maximum, x),
        "MaxPool": max_pool,
        "Min": lambda _, x: fold(torch.minimum, x),
        "Mod": remainder,
        "PRelu": prelu,
        "Pad": pad,
        "ReduceL2": reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
        "ReduceMax": reduction(lambda x, axes, keep: x.amax(axes, keep)),
        "ReduceMean": reduction(lambda x, axes, keep: x.mean(axes, keep)),
        "ReduceMin": reduction(lambda x, axes, keep: x.amin(axes, keep)),
        "ReduceSum": reduction(lambda x, axes, keep: x.sum(axes, keep)),
        "ReduceSumSquare": reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
        "Reshape": reshape,
        "Resize": resize,
        "Shape": shape,
        "Slice": cut,
        "Softmax": lambda a, x: F.softmax(x[0], a.get("axis", -1)),
        "Split": split,
        "Squeeze": squeeze,
        "Sum": lambda _, x: fold(torch.add, x),
        "Transpose": transpose,
        "Unsqueeze": unsqueeze,
    }


def plain(function: Callable[..., Any]) -> Operator:
    """An operator without attributes."""
    return lambda _, inputs: function(*inputs)


def fold(function: Callable[[Tensor, Tensor], Tensor], inputs: Inputs) -> Tensor:
    """An operator of two tensors over any number of them."""
    first, *others = inputs
    for other in others:
        first = function(first, other)
    answer: Tensor = first
    return answer


def _type_of(attribute: str) -> torch.dtype:
    return torch.int64 if attribute.startswith("value_int") else torch.float32
