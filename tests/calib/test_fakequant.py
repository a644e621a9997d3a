import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")

from roadseg.calib.cache import Ranges, format_cache, parse_cache  # noqa: E402
from roadseg.calib.fakequant import Int8Rounding, fake_quantize, round_weights  # noqa: E402
from roadseg.calib.placement import place  # noqa: E402
from roadseg.calib.qdq import insert_qdq, quantize_weights  # noqa: E402
from roadseg.calib.source import load_float_model  # noqa: E402
from roadseg.calib.torchgraph import TorchGraph  # noqa: E402
from roadseg.runtime import CalibrationError  # noqa: E402


def onnx_runtimes(values, scale):
    """Values through QuantizeLinear and DequantizeLinear."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def test_values_are_rounded_as_onnx_runtime_rounds_them_to_the_last_bit():
    scale = np.float32(0.037)
    ties = (np.arange(-140, 141, dtype=np.float32) + np.float32(0.5)) * np.float32(0.25)
    for step, values in ((scale, np.random.default_rng(0).normal(0, 3, 9999).astype(np.float32)), (0.25, ties)):
        found = fake_quantize(torch.from_numpy(values), torch.tensor(np.float32(step)))
        np.testing.assert_array_equal(found.numpy(), onnx_runtimes(values, step))


def test_weights_are_rounded_as_quantize_weights_rounds_them():
    weights = np.random.default_rng(1).normal(0, 1, (4, 3, 3, 2)).astype(np.float32)
    weights[2] = 0
    for axis in (0, 1):
        rounded, scales = quantize_weights(weights, axis)
        shape = [-1 if i == axis else 1 for i in range(4)]
        expected = rounded.astype(np.float32) * scales.reshape(shape)
        np.testing.assert_array_equal(round_weights(torch.from_numpy(weights), axis).numpy(), expected)


def test_gradients_go_straight_through_but_for_what_is_cut_off():
    # By hand, with a scale of 2: 3.0 is one and a half steps and goes up to two, half a step too far; 260 steps
    # are cut off at 127, and -260 at -128.
    values = torch.tensor([3.0, 520.0, -520.0], requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    rounded = fake_quantize(values, scale)
    assert rounded.tolist() == [4, 254, -256]
    (rounded * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad.tolist() == [1, 0, 0]
    assert scale.grad.item() == 0.5 * 1 + 127 * 10 - 128 * 100


@pytest.fixture
def joined(graph):
    return graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            a = Conv(images, w1)
            b = Relu(a)
            both = Concat<axis=1>(a, b)
            logits = Conv(both, w2)
        }""",
        w1=(2, 3, 1, 1),
        w2=(2, 4, 1, 1),
    )


def test_what_is_concatenated_has_one_scale_to_learn(joined):
    rounding = Int8Rounding(place(joined), Ranges({"images": 1, "a": 5, "b": 5, "both": 5}, "MinMaxCalibration"))
    assert len(rounding.shift) == 2
    with torch.no_grad():
        rounding.shift[rounding.position["both"]] = np.log(2)
    amax = rounding.ranges().amax
    assert amax["a"] == amax["b"] == amax["both"] == pytest.approx(10)
    assert amax["images"] == pytest.approx(1)


def test_untouched_ranges_come_back_bit_by_bit_and_a_tensor_without_one_is_named(joined):
    ranges = Ranges({"images": 0.3, "a": 5.7, "b": 5.7, "both": 5.7}, "EntropyCalibration2")
    cache = format_cache(ranges)
    rounding = Int8Rounding(place(joined), parse_cache(cache, "x"))
    assert format_cache(rounding.ranges()) == cache
    with pytest.raises(CalibrationError, match='lack the tensor "images"'):
        Int8Rounding(place(joined), Ranges({}, "EntropyCalibration2"))


def test_layers_and_tensors_that_stay_float_are_left_alone(small):
    rounding = Int8Rounding(
        place(load_float_model(small), ["logits"]), Ranges({"pixels": 1.0}, "MinMaxCalibration")
    )
    values = torch.rand(3, 4)
    assert rounding.activation("active", values) is values
    assert rounding.weights("logits", "w2", values) is values
    assert rounding.weights("first", "pixels", values) is values
    assert rounding.weights("first", "w1", values) is not values


def test_matrices_that_pool_are_rounded_as_in_onnx_runtime(graph):
    model = graph(
        """g (float[1,3,4,6] images) => (float[1,3,2,3] y) {
            by_rows = MatMul(rows, images)
            y = MatMul(by_rows, columns)
        }""",
        rows=(2, 4),
        columns=(6, 3),
    )
    ranges = Ranges({"images": 1.0, "by_rows": 3.0}, "MinMaxCalibration")
    rounding, net = Int8Rounding(place(model), ranges), TorchGraph(model, ["y"])
    images = torch.rand(1, 3, 4, 6)
    (exact,), (found,) = net(images), net(images, rounding)
    insert_qdq(model, ranges)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
    assert (found - exact).abs().max() > 1e-3
