import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from roadseg.calib.cache import Ranges
from roadseg.calib.qdq import insert_qdq, quantize_weights
from roadseg.runtime import CalibrationError


def nodes_of(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


def constant(model, name):
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def run(model, *inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


@pytest.fixture
def residual(graph):
    """Everything placement knows: shared input, residual sum, concatenation, transposed convolution."""
    return graph(
        """g (float[1,4,8,8] x) => (float[1,3,16,16] y) {
            inner = Conv<pads=[1,1,1,1], group=4>(x, w_depthwise, bias)
            relu = Relu(inner)
            branch = Conv(relu, w1)
            sum = Add(branch, x)
            both = Concat<axis=1>(sum, relu)
            y = ConvTranspose<strides=[2,2]>(both, w_up)
        }""",
        w_depthwise=(4, 1, 3, 3),
        bias=(4,),
        w1=(4, 4, 1, 1),
        w_up=(8, 3, 2, 2),
    )


RANGES = Ranges({"x": 3.0, "relu": 2.5, "sum": 2.5, "both": 2.5}, "minmax")


def test_weights_are_rounded_per_channel_by_hand():
    weights = np.array([[1.27, -0.5], [0.0, 0.0], [-12.7, 0.04]], np.float32)
    rounded, scales = quantize_weights(weights, axis=0)
    assert rounded.tolist() == [[127, -50], [0, 0], [-127, 0]]
    np.testing.assert_allclose(scales, [0.01, 1.0, 0.1], rtol=1e-6)


def test_rounding_weights_is_off_by_half_a_step_at_most():
    weights = np.random.default_rng(0).normal(size=(5, 7, 3, 3)).astype(np.float32)
    rounded, scales = quantize_weights(weights, axis=1)
    steps = scales.reshape(1, 7, 1, 1)
    assert np.abs(rounded * steps - weights).max() <= 0.5001 * steps.max()
    assert (np.abs(rounded).max(axis=(0, 2, 3)) == 127).all()


def test_a_tensor_is_quantised_once_and_all_its_readers_share_it(residual):
    insert_qdq(residual, RANGES)
    assert [node.input[0] for node in nodes_of(residual, "QuantizeLinear")] == ["x", "relu", "sum", "both"]
    readers = {node.output[0]: list(node.input) for node in residual.graph.node}
    assert readers["inner"] == ["x/dq", "w_depthwise/axis0", "bias"]
    assert readers["sum"] == ["branch", "x/dq"]
    assert readers["both"] == ["sum/dq", "relu/dq"]
    assert readers["y"] == ["both/dq", "w_up/axis1"]


def test_scales_are_those_of_the_ranges_bit_by_bit(residual):
    insert_qdq(residual, RANGES)
    for node in nodes_of(residual, "QuantizeLinear"):
        assert constant(residual, node.input[1]).tobytes() == RANGES.scale(node.input[0]).tobytes()
        assert constant(residual, node.input[2]).dtype == np.int8
        assert constant(residual, node.input[2]) == 0


def test_weights_are_stored_as_int8_and_biases_as_float32(residual):
    insert_qdq(residual, RANGES)
    types = {t.name: t.data_type for t in residual.graph.initializer}
    assert types["w_depthwise/axis0/int8"] == types["w_up/axis1/int8"] == onnx.TensorProto.INT8
    assert types["bias"] == onnx.TensorProto.FLOAT
    assert "w_depthwise" not in types


def test_weights_that_two_layers_share_are_stored_once(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            first = Conv(x, w)
            y = Conv(first, w)
        }""",
        w=(4, 4, 1, 1),
    )
    insert_qdq(model, Ranges({"x": 1.0, "first": 1.0}, "minmax"))
    assert len([t for t in model.graph.initializer if t.name.endswith("/int8")]) == 1


def test_the_quantised_graph_computes_what_integers_would(graph):
    weights = np.array([[2.0, -1.0], [0.5, 0.25]], np.float32).reshape(2, 2, 1, 1)
    model = graph("g (float[1,2,1,3] x) => (float[1,2,1,3] y) { y = Conv(x, w) }", w=weights)
    insert_qdq(model, Ranges({"x": 12.7}, "minmax"))
    x = np.array([[1.04, -2.06, 99.0], [0.0, 5.0, -99.0]], np.float32).reshape(1, 2, 1, 3)
    # Steps of 0.1, saturated at 127 and -128: 1.0 -2.1 12.7 and 0.0 5.0 -12.8.
    # Weights: -1.0 is -64 steps of 2 / 127 (63.5 rounds to even), 0.25 is 64 steps of 0.5 / 127.
    w = np.array([[2.0, -64 * 2 / 127], [0.5, 64 * 0.5 / 127]])
    expected = w @ np.array([[1.0, -2.1, 12.7], [0.0, 5.0, -12.8]])
    np.testing.assert_allclose(run(model, x)[0, :, 0], expected, atol=1e-4)


def test_a_tensor_without_a_range_asks_for_another_calibration(residual):
    with pytest.raises(CalibrationError, match=r'lack the tensor "both"'):
        insert_qdq(residual, Ranges({"x": 3.0, "relu": 2.5, "sum": 2.5}, "minmax"))
