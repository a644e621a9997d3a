"""What becomes float16 in an INT8 model, on graphs whose every tensor is known."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from roadseg.calib.cache import Ranges
from roadseg.calib.fp16 import CARRIED, LARGE, SUMS
from roadseg.calib.graph import known_values
from roadseg.calib.placement import place
from roadseg.calib.qdq import insert_qdq

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def quantized(model, rest="fp16", kept=(), **amax):
    """A model in INT8, each tensor with a range of 3 unless another is given; and what was changed."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    ranges = dict.fromkeys(place(model).activations, 3.0) | amax
    return copied, insert_qdq(copied, Ranges(ranges, "minmax"), kept, rest)


def types_of(model):
    types = {value.name: value.type.tensor_type.elem_type for value in known_values(model)}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def casts(model):
    return [(node.input[0], node.output[0]) for node in model.graph.node if node.op_type == "Cast"]


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.fixture
def upsampled(graph):
    """Two layers, a resize that reads the first one's result between them, and a sigmoid behind the second."""
    return graph(
        """g (float[1,4,8,8] x) => (float[1,4,16,16] y) {
            first = Conv(x, w1, bias)
            relu = Relu(first)
            larger = Resize<mode="linear">(relu, , scales)
            second = Conv(larger, w2)
            y = Sigmoid(second)
        }""",
        w1=(4, 4, 1, 1),
        w2=(4, 4, 1, 1),
        bias=(4,),
        scales=np.array([1, 1, 2, 2], np.float32),
    )


@pytest.fixture
def residual(graph):
    """A kernel with a sum in it, a pool, and a concatenation, all of them in front of 8 bits."""
    return graph(
        """g (float[1,4,8,8] x) => (float[1,3,4,4] y) {
            inner = Conv<pads=[1,1,1,1], group=4>(x, w_depthwise, bias)
            relu = Relu(inner)
            branch = Conv(relu, w1)
            sum = Add(branch, x)
            clipped = LeakyRelu(sum)
            both = Concat<axis=1>(clipped, relu)
            top = MaxPool<kernel_shape=[2,2], strides=[2,2]>(both)
            y = Conv(top, w2)
        }""",
        w_depthwise=(4, 1, 3, 3),
        bias=(4,),
        w1=(4, 4, 1, 1),
        w2=(3, 8, 1, 1),
    )


def test_float16_begins_behind_a_kernel_and_ends_in_front_of_8_bits(upsampled):
    model, change = quantized(upsampled)
    types = types_of(model)
    assert [types[name] for name in ("first", "relu", "larger", "second", "y/fp16", "y")] == [
        *(FULL, FULL),
        HALF,
        FULL,
        *(HALF, FULL),
    ]
    assert casts(model) == [
        ("relu", "relu/fp16"),
        ("larger", "larger/fp32"),
        ("second", "second/fp16"),
        ("y/fp16", "y"),
    ]
    assert (change.nodes, change.kept, change.float32) == ({"first", "second"}, {}, {})


def test_scales_biases_and_what_stands_between_a_pair_are_as_without_float16(upsampled):
    typed, plain = quantized(upsampled)[0], quantized(upsampled, "fp32")[0]
    kinds = ("QuantizeLinear", "DequantizeLinear", "Conv", "Relu")
    both = [{n.output[0]: n for n in model.graph.node if n.op_type in kinds} for model in (typed, plain)]
    changed = [name for name in both[1] if both[0][name] != both[1][name]]
    assert changed == ["larger/q"]  # reads the float32 form of what is float16 now
    constants = [{t.name: t.SerializeToString() for t in model.graph.initializer} for model in (typed, plain)]
    assert constants[0] == constants[1]
    assert types_of(typed)["larger/scale"] == FULL


def test_a_model_that_is_8_bits_all_along_needs_no_float16(residual):
    assert quantized(residual)[0] == quantized(residual, "fp32")[0]


def test_a_pool_is_float16_where_float_is_read_behind_it(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,4,4] y) {
            conv = Conv(x, w)
            top = MaxPool<kernel_shape=[2,2], strides=[2,2]>(conv)
            y = Sigmoid(top)
        }""",
        w=(4, 4, 1, 1),
    )
    assert types_of(quantized(model)[0])["top"] == HALF


def test_a_layer_that_is_left_float_computes_in_float16(upsampled):
    model, change = quantized(upsampled, kept=["second"])
    types = types_of(model)
    assert (types["second"], types["w2/fp16"]) == (HALF, HALF)
    assert "w2" not in types
    assert change.nodes == {"first"}
    assert list(change.kept) == ['Conv "second"']
    assert types_of(quantized(upsampled, "fp32", kept=["second"])[0])["second"] == FULL


def test_a_sum_without_8_bits_is_no_part_of_a_kernel(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            a = Conv(x, w1)
            b = Conv(x, w2)
            sum = Add(a, b)
            y = Conv(sum, w3)
        }""",
        w1=(4, 4, 1, 1),
        w2=(4, 4, 1, 1),
        w3=(4, 4, 1, 1),
    )
    assert types_of(quantized(model)[0])["sum"] == FULL  # of b and the 8 bits of a
    assert types_of(quantized(model, kept=["b"])[0])["sum"] == HALF


def test_sums_over_a_map_stay_float32_and_are_told(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            conv = Conv(x, w1)
            mean = GlobalAveragePool(conv)
            gate = Sigmoid(mean)
            gated = Mul(conv, gate)
            y = Conv(gated, w2)
        }""",
        w1=(4, 4, 1, 1),
        w2=(4, 4, 1, 1),
    )
    model, change = quantized(model)
    assert [types_of(model)[name] for name in ("mean", "gate", "gated")] == [FULL, HALF, HALF]
    assert change.float32 == {'GlobalAveragePool "mean"': SUMS}


def test_what_a_range_shows_to_be_beyond_float16_stays_float32_until_a_layer(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            conv = Conv(x, w1)
            large = Mul(conv, factor)
            next = Conv(large, w2)
            root = Sqrt(large)
            less = Neg(root)
            y = Conv(less, w3)
        }""",
        w1=(4, 4, 1, 1),
        w2=(4, 4, 1, 1),
        w3=(4, 4, 1, 1),
        factor=np.array(5e4, np.float32),
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("next", FULL, [1, 4, 8, 8]))
    change = quantized(model, large=70000.0)[1]
    assert change.float32 == {'Mul "large"': LARGE, 'Sqrt "root"': CARRIED, 'Neg "less"': CARRIED}
    assert quantized(model, large=65000.0)[1].float32 == {}


def test_answers_are_those_without_float16_to_its_precision(upsampled):
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    typed, plain = (run(quantized(upsampled, rest)[0], x) for rest in ("fp16", "fp32"))
    # The resized map may fall on the other side of a rounding step, 3 / 127, of the second layer's input.
    assert np.abs(typed - plain).mean() < 1e-3
    assert np.abs(typed - plain).max() < 0.02
    assert typed.std() > 0.03


def layers_in(trt, model):
    """Type of layer, of its first input, and of its output, of every layer of an engine, as the builder tells."""

    class Listener(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.said = []

        def log(self, _, text):
            self.said.append(text)

    listener = Listener()
    builder = trt.Builder(listener)
    network = builder.create_network()
    parser = trt.OnnxParser(network, listener)
    assert parser.parse(model.SerializeToString()), parser.get_error(0)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None
    told = next(text for text in listener.said if text.startswith("Layers:"))
    pattern = r"LayerType: (\w+), Inputs: \[.*?Datatype: (\w+).*?Outputs: \[.*?Datatype: (\w+)"
    return [found.groups() for line in told.splitlines() if (found := re.search(pattern, line))]


def test_tensorrt_rtx_builds_the_same_int8_layers_and_halves_some_of_what_is_float_between(fastscnn):
    trt = pytest.importorskip("tensorrt_rtx")
    plain, typed = (layers_in(trt, quantized(onnx.load(fastscnn), rest)[0]) for rest in ("fp32", "fp16"))
    convolutions = [[kind for layer, kind, _ in layers if layer == "correlation"] for layers in (plain, typed)]
    assert [kinds.count("Int8") for kinds in convolutions] == [45, 45]
    # What other layers write: float32 are the frame, the pools, and what they read.
    floats = [[kind for layer, _, kind in layers if layer != "correlation"] for layers in (plain, typed)]
    assert "Half" not in floats[0]
    assert floats[1].count("Half") > 0
    assert floats[1].count("Float") < floats[0].count("Float")


def test_scales_of_fast_scnn_are_float32_and_resizes_float16(fastscnn):
    model, change = quantized(onnx.load(fastscnn))
    types = types_of(model)
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {types[node.input[1]] for node in pairs} == {FULL}
    assert {types[node.output[0]] for node in model.graph.node if node.op_type == "Resize"} == {HALF}
    assert set(change.float32.values()) == {SUMS}
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert all(constants[node.input[1]].min() > 0 for node in pairs)
