"""Frames of one grey, so that every magnitude can be worked out by hand."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from roadseg.calib import quantize
from roadseg.calib.fp16 import SUMS
from roadseg.calib.graph import Graph
from roadseg.calib.overflow import float32_reasons, largest_magnitudes, overflow, overflow_on
from roadseg.calib.ranges import expose
from roadseg.runtime import CalibrationError, ModelSpec, UsageError
from roadseg.runtime.onnxfile import onnx_spec

SPEC = ModelSpec("grey", 8, 8, classes=("road", "sky"))
HEAD = """bytes = Cast<to=1>(frames)
    images = Transpose<perm=[0,3,1,2]>(bytes)"""
TAIL = "best = ArgMax<axis=1, keepdims=0>(logits) labels = Cast<to=2>(best)"
CONSTANTS = {
    "many": np.array(300, np.float32),
    "unit": np.array(1 / 300, np.float32),
    "micro": np.array(1e-6, np.float32),
    "w": np.full((1, 3, 1, 1), -50, np.float32),
    "w2": np.ones((2, 1, 1, 1), np.float32),
    "minus": np.array(-1, np.float32),
}


def grey(value):
    return np.full((8, 8, 3), value, np.uint8)


@pytest.fixture
def report(graph):
    """What is told of a graph from `images` to `logits`, on one grey of 100 and one darker."""

    def make(body, *greys):
        text = f"g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {{ {HEAD} {body} {TAIL} }}"
        return overflow_on(graph(text, **CONSTANTS), SPEC, [grey(value) for value in greys or (100, 20)])

    return make


def found(extremes):
    return [(e.tensor, e.node, round(e.largest, 7), e.kept) for e in extremes]


def test_a_tensor_near_65504_is_named_and_negative_values_count(report):
    # 3 channels of 100 times -50 are -15000 and of 110 -16500; a quarter of 65504 is 16376.
    body = "first = Conv(images, w) logits = Conv(first, w2)"
    assert report(body, 100).near_overflow == ()
    assert found(report(body, 110).near_overflow) == [
        ("logits", 'Conv "logits"', 16500.0, ""),
        ("first", 'Conv "first"', 16500.0, ""),
    ]


def test_the_largest_of_all_frames_counts_wherever_it_comes(report):
    body = "first = Conv(images, w) logits = Conv(first, w2)"
    for greys in ((110, 20), (20, 110)):
        told = report(body, *greys)
        assert told.images == 2
        assert told.near_overflow[0].largest == 16500.0


def test_a_tensor_of_tiny_values_is_named_and_one_of_zeros_is_not(report):
    # sigmoid(15000) is 1, and 1e-6 is below 4 * 2^-14.
    body = """first = Conv(images, w)
        plus = Mul(first, minus)
        gate = Sigmoid(plus)
        small = Mul(gate, micro)
        zero = Sub(small, small)
        sum = Add(small, zero)
        logits = Conv(sum, w2)"""
    told = report(body)
    assert {e.tensor for e in told.near_underflow} == {"small", "sum", "logits"}
    assert all(e.largest == pytest.approx(1e-6) for e in told.near_underflow)


def test_what_prepares_the_pixels_is_safe_unless_a_layer_reads_it(report):
    safe = report(
        "huge = Mul(images, many) pixels = Mul(huge, unit) first = Conv(pixels, w) logits = Conv(first, w2)"
    )
    assert found(safe.near_overflow) == [
        ("huge", 'Mul "huge"', 30000.0, "it prepares the pixels, in front of the first layer"),
    ]
    assert safe.at_risk == ()
    cast = report("huge = Mul(images, many) first = Conv(huge, w) logits = Conv(first, w2)")
    assert ("huge", 'Mul "huge"', 30000.0, "") in found(cast.near_overflow)


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ("gate = Softplus(mean)", SUMS),  # float32 as well
        ("gate = Sigmoid(mean)", ""),  # float16, for which the mean is cast
    ],
)
def test_what_a_long_sum_gives_is_safe_unless_it_is_cast(report, gate, reason):
    body = f"""first = Conv(images, w)
        mean = GlobalAveragePool(first)
        {gate}
        scaled = Mul(first, gate)
        logits = Conv(scaled, w2)"""
    assert ("mean", 'GlobalAveragePool "mean"', 16500.0, reason) in found(report(body, 110).near_overflow)


def test_nan_on_a_frame_is_refused(report):
    with pytest.raises(
        CalibrationError, match=r'"root/(largest|smallest|magnitudes)" holds infinite values or NaN'
    ):
        report("first = Conv(images, w) root = Sqrt(first) logits = Conv(root, w2)")


def test_magnitudes_are_those_of_the_tensors_themselves(fastscnn, scenes):
    model = onnx.load(fastscnn)
    tensors = list(float32_reasons(Graph(model)))
    frames = scenes(96, 128).frames[:2]
    images, told = largest_magnitudes(model, onnx_spec(model, fastscnn), tensors, frames)
    session = onnxruntime.InferenceSession(expose(model, tensors).SerializeToString())
    by_frame = [session.run(None, {"frames": frame[None]}) for frame in frames]
    expected = [max(np.abs(seen[i]).max() for seen in by_frame) for i in range(len(tensors))]
    assert images == 2
    assert len(tensors) > 100
    np.testing.assert_allclose([told[name] for name in tensors], expected, rtol=1e-6)


def test_a_layer_with_far_too_large_weights_is_found_in_a_network(fastscnn, scenes):
    model = onnx.load(fastscnn)
    spec = onnx_spec(model, fastscnn)
    frames = scenes(96, 128).frames[:1]
    assert overflow_on(model, spec, frames).near_overflow == ()
    graph = Graph(model)
    layer = next(node for node in graph.nodes if node.op_type == "Conv")
    for name in layer.input[1:]:
        tensor = graph.constants[name]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e5), name))
    assert layer.output[0] in {extreme.tensor for extreme in overflow_on(model, spec, frames).at_risk}


def test_a_file_is_read_and_images_of_any_split_are_taken(small, scenes):
    told = overflow(small, scenes(split="val"), count=3)
    assert (told.images, told.tensors) == (3, 6)
    assert told.summary()["at_risk"] == 0


def scaled(path, out, factor):
    """The model with the weights of its first layer multiplied by a factor."""
    model = onnx.load(path)
    graph = Graph(model)
    layer = next(node for node in graph.nodes if node.op_type == "Conv")
    for name in layer.input[1:]:
        tensor = graph.constants[name]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    onnx.save(model, out)
    return out


def test_a_model_that_overflows_is_not_typed_where_frames_are_given(small, scenes, tmp_path):
    large, out = scaled(small, tmp_path / "large.onnx", 3e5), tmp_path / "fp16.onnx"
    with pytest.raises(
        CalibrationError,
        match=r"large\.onnx overflows in FP16: on 3 frames of folder.* of its tensors go beyond 65504 "
        r'.*"first" of Conv "first" \(\d',
    ):
        quantize(large, "fp16", out=out, overflow_data=scenes(), overflow_count=3)
    assert not out.exists()
    assert quantize(small, "fp16", out=out, overflow_data=scenes(), overflow_count=3).overflow_frames == 3


def test_what_stays_float32_may_be_larger(graph, save, tmp_path, scenes):
    text = f"""g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {{ {HEAD}
        huge = Mul(images, many) again = Mul(huge, many) pixels = Mul(again, unit) small = Mul(pixels, unit)
        first = Conv(small, w2x) logits = Conv(first, w2) {TAIL} }}"""
    model = graph(text, **CONSTANTS, w2x=np.full((1, 3, 1, 1), 0.1, np.float32))
    path = save(tmp_path / "g.onnx", model, SPEC)
    assert overflow(path, scenes()).near_overflow[0].largest > 65504
    assert quantize(path, "fp16", out=tmp_path / "fp16.onnx", overflow_data=scenes()).overflow_frames == 5


def test_int8_takes_no_frames_to_look_on(small, scenes, tmp_path):
    with pytest.raises(UsageError, match="only an FP16 model is looked at"):
        quantize(small, "int8", ranges=small, out=tmp_path / "x.onnx", overflow_data=scenes())
