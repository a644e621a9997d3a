"""Every operator gives what ONNX Runtime gives."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")

from roadseg.calib.torchgraph import TorchGraph  # noqa: E402
from roadseg.calib.torchops import operators  # noqa: E402
from roadseg.runtime import CalibrationError  # noqa: E402

INTS = {"axes": [2, 3], "last": [-1], "first": [0], "rows": [1, 3], "three": [0, 3, -1], "wide": [4, 3, 5, 6]}
"""Constants of int64."""
CASES = {
    "Abs": "Abs(x)",
    "Add": "Add(x, row)",
    "And": "bool And(low, high)",
    "ArgMax": "int64 ArgMax<axis=1, keepdims=0>(x)",
    "AveragePool": "AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]>(x)",
    "AveragePool with border": "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
    "BatchNormalization": "BatchNormalization<epsilon=0.01>(x, c, d, c, var)",
    "Cast": "uint8 Cast<to=2>(positive)",
    "CastLike": "int64 CastLike(x, three)",
    "Ceil": "Ceil(x)",
    "Clip": "Clip(x, zero, one)",
    "Clip below": "Clip(x, zero)",
    "Concat": "Concat<axis=1>(x, x, positive)",
    "Constant": "Constant<value_floats=[1.5, 2.5]>()",
    "ConstantOfShape": "ConstantOfShape<value=float[1] {2.5}>(rows)",
    "Conv": "Conv<strides=[2,1], pads=[1,1,1,1], dilations=[1,2]>(x, kernel, e)",
    "Conv on one side": "Conv<group=3, pads=[0,1,2,0]>(x, deep)",
    "Conv in one dimension": "Conv<pads=[1,0]>(line, kernel1)",
    "ConvTranspose": "ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, kernel_t, c)",
    "ConvTranspose on one side": "ConvTranspose<strides=[2,2], pads=[0,1,1,0]>(x, kernel_t)",
    "Cos": "Cos(x)",
    "DepthToSpace": "DepthToSpace<blocksize=2>(blocks)",
    "DepthToSpace by columns": 'DepthToSpace<blocksize=2, mode="CRD">(blocks)',
    "Div": "Div(x, positive)",
    "Div of integers": "int64 Div(three, minus_two)",
    "Dropout": "Dropout(x)",
    "Einsum": 'Einsum<equation="nchw,nchv->nhwv">(x, x)',
    "Elu": "Elu<alpha=0.5>(x)",
    "Equal": "bool Equal(x, x)",
    "Erf": "Erf(x)",
    "Exp": "Exp(x)",
    "Expand": "Expand(row, wide)",
    "Flatten": "Flatten<axis=2>(x)",
    "Flatten from behind": "Flatten<axis=-1>(x)",
    "Floor": "Floor(x)",
    "Gather": "Gather<axis=2>(x, three)",
    "Gather of one": "Gather(c, two)",
    "GatherElements": "GatherElements<axis=3>(x, picked)",
    "GatherND": "GatherND(x, places)",
    "Gelu": 'Gelu<approximate="tanh">(x)',
    "Gemm": "Gemm<transB=1, alpha=0.5, beta=2.0>(matrix, matrix, row4)",
    "Gemm without bias": "Gemm<transA=1>(matrix, matrix)",
    "GlobalAveragePool": "GlobalAveragePool(x)",
    "GlobalMaxPool": "GlobalMaxPool(x)",
    "Greater": "bool Greater(x, zero)",
    "GreaterOrEqual": "bool GreaterOrEqual(x, x)",
    "HardSigmoid": "HardSigmoid<alpha=0.3, beta=0.4>(x)",
    "HardSwish": "HardSwish(x)",
    "Identity": "Identity(x)",
    "InstanceNormalization": "InstanceNormalization<epsilon=0.01>(x, c, d)",
    "LayerNormalization": "LayerNormalization<axis=-1, epsilon=0.01>(x, six, six)",
    "LeakyRelu": "LeakyRelu<alpha=0.2>(x)",
    "Less": "bool Less(x, zero)",
    "LessOrEqual": "bool LessOrEqual(x, x)",
    "Log": "Log(positive)",
    "LogSoftmax": "LogSoftmax<axis=1>(x)",
    "MatMul": "MatMul(x, six_by_two)",
    "Max": "Max(x, zero, row)",
    "MaxPool": "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
    "MaxPool by ceiling": "MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)",
    "MaxPool on one side": "MaxPool<kernel_shape=[2,2], pads=[0,0,1,1]>(x)",
    "Min": "Min(x, zero)",
    "Mish": "Mish(x)",
    "Mod": "int64 Mod(three, minus_two)",
    "Mod by the first sign": "Mod<fmod=1>(x, positive)",
    "Mul": "Mul(x, x)",
    "Neg": "Neg(x)",
    "Not": "bool Not(low)",
    "Or": "bool Or(low, high)",
    "PRelu": "PRelu(x, slope)",
    "Pad": "Pad(x, border, one)",
    "Pad by reflection": 'Pad<mode="reflect">(x, border)',
    "Pad by the edge": 'Pad<mode="edge">(x, border2, , axes)',
    "Pad that cuts": "Pad(x, cut, , axes)",
    "Pow": "Pow(positive, half)",
    "Range": "int64 Range(two, nine, three_alone)",
    "Reciprocal": "Reciprocal(positive)",
    "ReduceL2": "ReduceL2<keepdims=0>(x, axes)",
    "ReduceMax": "ReduceMax(x, axes)",
    "ReduceMean": "ReduceMean(x, axes)",
    "ReduceMean of all": "ReduceMean<keepdims=0>(x)",
    "ReduceMean of nothing": "ReduceMean<noop_with_empty_axes=1>(x)",
    "ReduceMin": "ReduceMin(x, axes)",
    "ReduceSum": "ReduceSum<keepdims=0>(x, last)",
    "ReduceSumSquare": "ReduceSumSquare(x, axes)",
    "Relu": "Relu(x)",
    "Reshape": "Reshape(x, kept)",
    "Resize": 'Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , larger)',
    "Resize by half pixels": 'Resize<mode="linear", coordinate_transformation_mode="half_pixel">(x, , , larger)',
    "Resize to less": 'Resize<mode="linear", coordinate_transformation_mode="half_pixel">(x, , , smaller)',
    "Resize by a factor": 'Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, , factors)',
    "Resize to one": 'Resize<mode="linear", coordinate_transformation_mode="pytorch_half_pixel">(x, , , one_each)',
    "Resize along axes": 'Resize<mode="linear", axes=[2,3]>(x, , , sizes)',
    "Resize to nearest": 'Resize<nearest_mode="floor", coordinate_transformation_mode="asymmetric">(x, , twice)',
    "Resize to the nearest centre": "Resize(x, , , larger)",
    "Resize to the nearest above": 'Resize<nearest_mode="round_prefer_ceil">(x, , , smaller)',
    "Round": "Round(halves)",
    "Shape": "int64 Shape<start=1>(x)",
    "Sigmoid": "Sigmoid(x)",
    "Sign": "Sign(x)",
    "Sin": "Sin(x)",
    "Slice": "Slice(x, first, last, two_alone)",
    "Slice backwards": "Slice(x, last, lowest, last, last)",
    "Softmax": "Softmax<axis=1>(x)",
    "Softplus": "Softplus(x)",
    "Split": "Split<axis=3>(x, parts)",
    "Split in equal parts": "Split<axis=2, num_outputs=3>(x)",
    "Sqrt": "Sqrt(positive)",
    "Squeeze": "Squeeze(row)",
    "Squeeze of some": "Squeeze(row, first)",
    "Sub": "Sub(x, row)",
    "Sum": "Sum(x, row, zero)",
    "Tanh": "Tanh(x)",
    "Tile": "Tile(x, times)",
    "Transpose": "Transpose<perm=[0,3,1,2]>(x)",
    "Transpose of all": "Transpose(x)",
    "Unsqueeze": "Unsqueeze(x, rows)",
    "Where": "Where(low, x, positive)",
}
"""A node for each operator, and more where it has several ways; the type of its output where it is not float."""
TYPES = {
    "bool": TensorProto.BOOL,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "float16": TensorProto.FLOAT16,
}
PARTS = {"Split": 2, "Split in equal parts": 3}
"""Outputs of the nodes that have more than one."""


def constants():
    rng = np.random.default_rng(3)
    shapes = {
        "row": (1, 1, 1, 6), "c": 3, "d": 3, "e": 2, "six": 6, "row4": 4, "matrix": (4, 4), "six_by_two": (6, 2),
        "kernel": (2, 3, 3, 2), "deep": (3, 1, 3, 2), "kernel1": (2, 3, 2), "kernel_t": (3, 3, 3, 3),
        "slope": (3, 1, 1), "line": (2, 3, 7), "blocks": (1, 8, 2, 3),
    }  # fmt: skip
    integers = INTS | {
        "border": [0, 0, 1, 2, 0, 0, 0, 1], "border2": [1, 0, 2, 1], "cut": [-1, 0, 0, -2], "kept": [0, -1, 6],
        "larger": [2, 3, 9, 13], "smaller": [2, 3, 3, 4], "one_each": [2, 3, 1, 1], "sizes": [7, 6],
        "two_alone": [2], "lowest": [-100], "parts": [2, 4], "times": [1, 2, 1, 3], "minus_two": [-2, 2, 2],
    }  # fmt: skip
    numbers = {"zero": 0.0, "one": 1.0, "half": 0.5}
    return (
        {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        | {name: np.array(value, np.int64) for name, value in integers.items()}
        | {name: np.array(value, np.float32) for name, value in numbers.items()}
        | {"two": np.array(2), "nine": np.array(9), "three_alone": np.array(3)}
        | {
            "var": np.array([0.5, 1, 2], np.float32),
            "factors": np.array([1, 1, 1.7, 2.3], np.float32),
            "twice": np.array([1, 1, 2, 2], np.float32),
            "halves": np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32),
            "places": np.array([[[0, 1], [1, -1]], [[1, 2], [-2, 0]]]),
            "picked": rng.integers(0, 6, (2, 3, 5, 2)),
            "low": rng.random((2, 3, 5, 6)) < 0.5,
            "high": rng.random((2, 3, 5, 6)) < 0.5,
            "positive": rng.uniform(0.5, 9, (2, 3, 5, 6)).astype(np.float32),
        }
    )


def model_of(case, outputs=1):
    """A model of one node, of its input x and the constants that it reads."""
    first, _, rest = CASES[case].partition(" ")
    kind, node = (first, rest) if first in TYPES else ("", CASES[case])
    names = [f"y{i}" for i in range(outputs)]
    text = f"g (float[2,3,5,6] x) => (float[1] y) {{ {', '.join(names)} = {node} }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    read = set(model.graph.node[0].input)
    tensors = [onnx.numpy_helper.from_array(v, name) for name, v in constants().items() if name in read]
    model.graph.initializer.extend(tensors)
    del model.graph.output[:]
    element = TYPES.get(kind, TensorProto.FLOAT)
    model.graph.output.extend(helper.make_tensor_value_info(name, element, None) for name in names)
    return model


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(4).normal(0, 2, (2, 3, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_onnx_runtime_gives(case, x):
    model = model_of(case, PARTS.get(case, 1))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in model.graph.output]
    expected = session.run(names, {"x": x})
    with torch.no_grad():
        found = TorchGraph(model, names)(torch.from_numpy(x))
    for wanted, given in zip(expected, found, strict=True):
        np.testing.assert_allclose(given.numpy(), wanted, rtol=1e-5, atol=1e-5, strict=True)


def test_every_operator_has_a_case():
    assert {model_of(case, PARTS.get(case, 1)).graph.node[0].op_type for case in CASES} == set(operators())


@pytest.mark.parametrize(
    ("node", "what"),
    [
        ('Conv<auto_pad="SAME_UPPER">(x, kernel)', "an operator with automatic borders"),
        ('Resize<mode="cubic">(x, , , larger)', "a Resize of mode cubic"),
        ('Resize<antialias=1, mode="linear">(x, , , smaller)', "a Resize of mode linear, or with extras"),
        ("int64 ArgMax<axis=1, select_last_index=1>(x)", "an ArgMax that takes the last of several"),
        ("float16 Cast<to=10>(x)", "a Cast to FLOAT16"),
    ],
)
def test_what_is_not_done_is_refused_by_name(node, what, x, monkeypatch):
    monkeypatch.setitem(CASES, "refused", node)
    operator = node.split("<")[0].split(" ")[-1]
    with pytest.raises(CalibrationError, match=rf'{operator} "y0" does not run in PyTorch: {what}'):
        TorchGraph(model_of("refused"), ["y0"])(torch.from_numpy(x))
