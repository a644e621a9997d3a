import json

import numpy as np
import pytest
from onnx import numpy_helper

from roadseg.calib import calibrate, equalise, is_equalised, quantize
from roadseg.calib.equalise import factors, importance, seams
from roadseg.calib.graph import Graph
from roadseg.runtime import CalibrationError, ModelSpec, sha256_file
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, load_onnx, metadata, save_onnx


def chains(model):
    return {seam.before.output[0]: [node.output[0] for node in seam.after] for seam in seams(Graph(model))}


def test_channels_pass_activations_and_depthwise_layers_but_no_sum(mobile):
    assert chains(load_onnx(mobile)) == {"expanded": ["filtered"], "filtered": ["projected"]}


def test_a_mobile_network_answers_bit_for_bit_as_before(mobile, scenes, tensors, tmp_path):
    report = equalise(mobile, scenes(16, 16), out=tmp_path / "equal.onnx")
    assert report.channels > 8
    before, after = (tensors(path, ["logits"], scenes(16, 16)) for path in (mobile, tmp_path / "equal.onnx"))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one["logits"], other["logits"])


def test_fast_scnn_answers_bit_for_bit_as_before(fastscnn, scenes, tensors, tmp_path):
    dataset = scenes(96, 128, groups=(4,))
    report = equalise(fastscnn, dataset, out=tmp_path / "equal.onnx")
    assert report.layers == 29
    logits = next(node.input[0] for node in load_onnx(fastscnn).graph.node if node.op_type == "ArgMax")
    before, after = (tensors(path, [logits], dataset) for path in (fastscnn, tmp_path / "equal.onnx"))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[logits], other[logits])


def test_channels_that_a_depthwise_layer_reads_reach_the_same_within_a_power_of_two(
    mobile, scenes, tensors, tmp_path
):
    equalise(mobile, scenes(16, 16), out=tmp_path / "equal.onnx")
    reach = {
        path: np.max([np.abs(t["wide"]).max(axis=(0, 2, 3)) for t in tensors(path, ["wide"], scenes(16, 16))], 0)
        for path in (mobile, tmp_path / "equal.onnx")
    }
    before, after = reach.values()
    assert before.max() / before.min() > 10
    # Each is rounded by half a power of two at most, and the largest is not to grow.
    assert after.max() / after.min() <= 2
    assert before.max() / 2 < after.max() <= before.max()


def test_int8_keeps_more_of_a_mobile_network(mobile, scenes, tensors, tmp_path):
    dataset = scenes(16, 16)
    exact = tensors(mobile, ["logits"], dataset)
    equalise(mobile, dataset, out=tmp_path / "equal.onnx")
    errors = []
    for model in (mobile, tmp_path / "equal.onnx"):
        calibrate(model, dataset, out=tmp_path / "m.ranges", method="minmax")
        quantize(model, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx")
        rounded = tensors(tmp_path / "int8.onnx", ["logits"], dataset)
        errors.append(sum(((a["logits"] - b["logits"]) ** 2).mean() for a, b in zip(exact, rounded, strict=True)))
    assert errors[1] < 0.8 * errors[0]


def test_factors_are_worked_out_from_reach_and_weights(graph):
    model = graph(
        """g (float[1,1,4,4] x) => (float[1,2,4,4] y) {
            made = Conv(x, w1)
            y = Conv(made, w2)
        }""",
        w1=(3, 1, 1, 1),
        w2=np.array([[2.0, 8.0, 0.5], [1.0, 4.0, 1.0]], np.float32).reshape(2, 3, 1, 1),
    )
    graph_of = Graph(model)
    (seam,) = seams(graph_of)
    # Rows have the largest 8 and 4, so columns weigh 1/4, 1 and max(1/16, 1/4).
    assert importance(graph_of, seam.after[0]).tolist() == [0.25, 1.0, 0.25]
    # Roots of reach / weight: sqrt(16 * 4) = 8, sqrt(1) = 1, sqrt(1/4 * 4) = 1. The first would then reach 2, the
    # others 1 and 1/4; with all factors 8 times smaller the largest is 16 as it was.
    assert factors(graph_of, seam, np.array([16.0, 1.0, 0.25])).tolist() == [1.0, 1 / 8, 1 / 8]


def test_a_channel_is_raised_64_fold_at_most_and_a_dead_one_not_at_all(graph):
    model = graph(
        """g (float[1,1,4,4] x) => (float[1,3,4,4] y) {
            made = Conv(x, w1)
            y = Conv<group=3>(made, w2)
        }""",
        w1=(3, 1, 1, 1),
        w2=(3, 1, 1, 1),
    )
    graph_of = Graph(model)
    (seam,) = seams(graph_of)
    assert factors(graph_of, seam, np.array([1.0, 1e-6, 0.0])).tolist() == [1.0, 1 / 64, 1.0]
    assert factors(graph_of, seam, np.zeros(3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "between",
    [
        "z = Clip(made, zero, six)",
        "z = Sigmoid(made)",
        "z = Add(made, made)",
        "z = PRelu(slope, made)",
        "z = BatchNormalization(made, s, s, s, s)",
        'z = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(made, roi, scales)',
        "z = Concat<axis=1>(made, made)",
    ],
)
def test_what_gives_other_than_multiples_is_left_alone(graph, between):
    width = 8 if "Concat" in between else 4
    model = graph(
        f"""g (float[1,3,4,4] x) => (float[1,4,4,4] y) {{
            made = Conv(x, w1)
            {between}
            y = Conv(z, w2)
        }}""",
        w1=(4, 3, 1, 1),
        w2=(4, width, 1, 1),
        slope=(1, 4, 4, 4),
        s=np.ones(4, np.float32),
        zero=np.zeros((), np.float32),
        six=np.array(6, np.float32),
        roi=np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32),
        scales=np.ones(4, np.float32),
    )
    assert chains(model) == {}


def test_a_tensor_that_anybody_else_sees_is_left_alone(graph):
    text = """g (float[1,3,4,4] x) => (float[1,4,4,4] y, float[1,4,4,4] other) {{
        made = Conv(x, w1)
        active = Relu(made)
        y = Conv(active, w2)
        other = {}
    }}"""
    weights = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1)}
    assert chains(graph(text.format("Sigmoid(active)"), **weights)) == {}
    assert chains(graph(text.format("Identity(active)"), **weights)) == {}
    assert chains(graph(text.format("Conv(active, w3)"), **weights)) == {"made": ["y", "other"]}
    assert chains(graph(text.format("Conv(active, w2)"), **weights)) == {}  # the same weights for both


def test_channels_pass_transposed_convolutions_pools_and_resizing(graph, save, scenes, tensors, tmp_path):
    model = graph(
        """g (float[1,3,8,8] images) => (float[1,2,16,16] logits) {
            made = Conv(images, w1, b1)
            small = MaxPool<kernel_shape=[2,2], strides=[2,2]>(made)
            up = ConvTranspose<strides=[2,2]>(small, w2, b2)
            active = LeakyRelu(up)
            large = Resize<mode="linear">(active, , scales)
            logits = Conv<group=2>(large, w3)
        }""",
        w1=(4, 3, 1, 1),
        b1=np.array([1, 10, 100, 0], np.float32),
        w2=(4, 6, 2, 2),
        b2=np.array([1, 10, 100, 0, 0, 0], np.float32),
        scales=np.array([1, 1, 2, 2], np.float32),
        w3=(2, 3, 1, 1),
    )
    assert chains(model) == {"made": ["up"], "up": ["logits"]}
    spec = ModelSpec("up", 8, 8, classes=("road", "sky"), io="tensor")
    path = save(tmp_path / "up.onnx", model, spec)
    report = equalise(path, scenes(), out=tmp_path / "equal.onnx")
    assert report.largest_factor >= 8
    before, after = (tensors(p, ["logits"], scenes()) for p in (path, tmp_path / "equal.onnx"))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one["logits"], other["logits"])


def test_the_model_tells_what_it_was_and_old_ranges_are_refused(mobile, scenes, tmp_path):
    calibrate(mobile, scenes(16, 16), out=tmp_path / "old.ranges")
    report = equalise(mobile, scenes(16, 16), out=tmp_path / "equal.onnx")
    entries = metadata(load_onnx(tmp_path / "equal.onnx"))
    assert entries[PRECISION_KEY] == "fp32"
    assert json.loads(entries[PROVENANCE_KEY]) == {
        "checkpoint": "c0ffee",
        "unequalised_onnx": sha256_file(mobile),
        "equalisation_images": report.images_sha256,
    }
    with pytest.raises(CalibrationError, match="ranges of another model"):
        quantize(tmp_path / "equal.onnx", "int8", ranges=tmp_path / "old.ranges", out=tmp_path / "x.onnx")
    assert [is_equalised(path) for path in (mobile, tmp_path / "equal.onnx")] == [False, True]
    with pytest.raises(CalibrationError, match="is equalised already"):
        equalise(tmp_path / "equal.onnx", scenes(16, 16), out=tmp_path / "again.onnx")


def test_the_same_inputs_give_the_same_bytes(mobile, scenes, tmp_path):
    assert len({equalise(mobile, scenes(16, 16), out=tmp_path / name).sha256 for name in ("a", "b")}) == 1


def test_infinite_values_are_refused_and_nothing_is_written(mobile, scenes, tmp_path):
    model = load_onnx(mobile)
    bias = next(t for t in model.graph.initializer if t.name == "b1")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), "b1"))
    save_onnx(mobile, model)
    with pytest.raises(CalibrationError, match='"wide" holds infinite values or NaN'):
        equalise(mobile, scenes(16, 16), out=tmp_path / "equal.onnx")
    assert not (tmp_path / "equal.onnx").exists()


def test_without_such_channels_nothing_but_the_history_changes(small, scenes, graph, save, tmp_path):
    model = graph(
        "g (float[1,3,8,8] images) => (float[1,2,8,8] logits) { logits = Conv(images, w1) }", w1=(2, 3, 1, 1)
    )
    path = save(tmp_path / "one.onnx", model, ModelSpec("one", 8, 8, classes=("road", "sky"), io="tensor"))
    report = equalise(path, scenes(), out=tmp_path / "equal.onnx")
    assert (report.layers, report.channels, report.largest_factor) == (0, 0, 1.0)
    assert load_onnx(tmp_path / "equal.onnx").graph == load_onnx(path).graph
