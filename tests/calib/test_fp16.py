import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from roadseg.calib.fp16 import cast_to_fp16
from roadseg.calib.graph import known_values

W = (4, 4, 1, 1)
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def types_of(model):
    types = {value.name: value.type.tensor_type.elem_type for value in known_values(model)}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def mixed_nodes(model):
    """Nodes whose float inputs differ in type, other than a Resize in its scales."""
    types = types_of(model)
    found = []
    for node in model.graph.node:
        inputs = node.input[:1] if node.op_type == "Resize" else node.input
        if len({types[name] for name in inputs if types.get(name) in FLOATS}) > 1:
            found.append(node.op_type)
    return found


def run(model, *inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


@pytest.fixture
def mixture(graph):
    """Pixels, layers, a pool that stays float32, a resize by scales, and two float outputs."""
    return graph(
        """g (float[1,4,8,8] x) => (float[1,4,16,16] y, float[1,4,1,1] mean) {
            pixels = Mul(x, unit)
            conv = Conv(pixels, w1, bias)
            relu = Relu(conv)
            mean = GlobalAveragePool(relu)
            shifted = Add(relu, mean)
            scaled = Mul(shifted, unit)
            larger = Resize<mode="linear">(scaled, , scales)
            y = Conv(larger, w2)
        }""",
        w1=W,
        w2=W,
        bias=(4,),
        unit=np.array(0.5, np.float32),
        scales=np.array([1, 1, 2, 2], np.float32),
    )


def test_inputs_and_outputs_keep_names_and_types(mixture):
    before = [*mixture.graph.input, *mixture.graph.output]
    signature = [value.SerializeToString() for value in before]
    cast_to_fp16(mixture)
    assert [v.SerializeToString() for v in (*mixture.graph.input, *mixture.graph.output)] == signature


def test_no_operator_mixes_types(mixture):
    cast_to_fp16(mixture)
    assert mixed_nodes(mixture) == []


def test_layers_are_float16_and_pixels_and_pools_are_not(mixture):
    change = cast_to_fp16(mixture)
    types = types_of(mixture)
    names = ("pixels", "conv", "relu", "mean", "shifted", "larger", "y/fp16")
    half, full = TensorProto.FLOAT16, TensorProto.FLOAT
    assert [types[name] for name in names] == [full, half, half, full, half, half, half]
    assert list(change.kept) == ['GlobalAveragePool "mean"']
    assert "overflow" in change.kept['GlobalAveragePool "mean"']


def test_a_tensor_is_cast_once_for_all_its_readers(mixture):
    cast_to_fp16(mixture)
    casts = [node.input[0] for node in mixture.graph.node if node.op_type == "Cast"]
    assert casts == ["pixels", "relu", "mean", "y/fp16"]


def test_a_constant_that_both_types_read_exists_in_both(mixture):
    cast_to_fp16(mixture)
    types = {tensor.name: tensor.data_type for tensor in mixture.graph.initializer}
    assert types["unit"] == TensorProto.FLOAT
    assert types["unit/fp16"] == TensorProto.FLOAT16
    assert types["scales"] == TensorProto.FLOAT
    assert "w1" not in types


def test_answers_stay_within_the_precision_of_float16(mixture):
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    exact = run(mixture, x)
    cast_to_fp16(mixture)
    for answer, expected in zip(run(mixture, x), exact, strict=True):
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=2e-3)
    assert np.abs(expected).max() > 0.1


def test_a_layer_whose_weights_overflow_stays_float32_and_says_so(graph):
    weights = np.full((4, 4, 1, 1), 70000.0, np.float32)
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            first = Conv(x, w1)
            y = Conv(first, w2)
        }""",
        w1=weights,
        w2=W,
    )
    change = cast_to_fp16(model)
    assert change.nodes == {"y"}
    assert change.kept == {'Conv "first"': 'its constant "w1" is beyond float16\'s 65504'}
    assert mixed_nodes(model) == []


def test_an_epsilon_that_float16_would_make_zero_keeps_the_divisor_from_being_zero(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            map = Conv(x, w1)
            length = ReduceL2<keepdims=1>(map, channels)
            divisor = Add(length, epsilon)
            root = Sqrt(divisor)
            direction = Div(map, root)
            y = Conv(direction, w2)
        }""",
        w1=W,
        w2=W,
        channels=np.array([1]),
        epsilon=np.array(1e-9, np.float32),
    )
    change = cast_to_fp16(model)
    assert change.kept['Add "divisor"'] == 'its constant "epsilon" would be 0 in float16'
    assert {'Sqrt "root"', 'Div "direction"'} <= change.kept.keys()
    assert change.nodes == {"map", "y"}
    assert not run(model, np.zeros((1, 4, 8, 8), np.float32))[0].any()


def test_weights_that_float16_makes_zero_are_counted(graph):
    # The smallest float16 is 2^-24; below half of it nothing is left.
    weights = np.array([1.0, 2.0**-24, 2.0**-26, 0.0], np.float32).reshape(1, 4, 1, 1)
    model = graph("g (float[1,4,8,8] x) => (float[1,1,8,8] y) { y = Conv(x, w) }", w=weights)
    assert cast_to_fp16(model).flushed_weights == 1


def test_a_cast_between_layers_is_turned_to_float16(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            first = Conv(x, w1)
            same = Cast<to=1>(first)
            y = Conv(same, w2)
        }""",
        w1=W,
        w2=W,
    )
    cast_to_fp16(model)
    assert types_of(model)["same"] == TensorProto.FLOAT16
    assert mixed_nodes(model) == []


def test_weights_are_rounded_to_the_nearest_float16(graph):
    weights = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    model = graph("g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv(x, w) }", w=weights)
    cast_to_fp16(model)
    stored = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "w/fp16"))
    np.testing.assert_array_equal(stored, weights.astype(np.float16))


def test_fast_scnn_is_half_the_size_and_passes_the_full_check(fastscnn):
    model = onnx.load(fastscnn)
    size = model.ByteSize()
    cast_to_fp16(model)
    onnx.checker.check_model(model, full_check=True)
    assert mixed_nodes(model) == []
    assert model.ByteSize() < 0.55 * size
