import dataclasses
import json

import numpy as np
import pytest
from onnx import numpy_helper

from roadseg.calib import calibrate, correct_bias, quantize, read_ranges
from roadseg.calib.cache import format_cache
from roadseg.runtime import CalibrationError, ModelSpec, read_manifest, sha256_file, write_with_manifest
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, load_onnx, metadata, save_onnx

PLAIN = ModelSpec("plain", 4, 4, classes=("road", "sky"), io="tensor", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Networks of these see pixels in [0, 1]."""
LAYERS = ["stem", "expanded", "filtered", "projected", "logits"]
"""Of the fixture `mobile`."""


@pytest.fixture
def quantized(scenes, tmp_path):
    """A function that calibrates a model and makes it INT8."""

    def make(model, dataset=None):
        dataset = dataset or scenes(16, 16)
        calibrate(model, dataset, out=tmp_path / "m.ranges", method="minmax")
        return quantize(model, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx").path

    return make


@pytest.fixture
def black_and_white(scenes):
    """Two frames whose green is 1 on three of four pixels and 0 elsewhere, red on half of them, blue on all.

    One is the other turned round, for copies are refused.
    """
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:3, :, 1] = frame[:, :2, 0] = frame[..., 2] = 255
    return dataclasses.replace(scenes(4, 4, groups=(2,)), frames=(frame, frame[::-1, ::-1].copy()))


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in load_onnx(path).graph.initializer}


def means(tensors, path, name, dataset):
    """Of each channel, frame by frame."""
    return np.array([seen[name].mean(axis=(0, 2, 3)) for seen in tensors(path, [name], dataset)])


def test_what_rounding_takes_from_weights_comes_back_in_the_bias(
    graph, save, quantized, black_and_white, tmp_path
):
    # Of 127 and 0.4, int8 keeps 127 and 0. Pixels of 0 and 1 are exact. So red + 0.4 green lacks 0.4 * 3/4 on
    # average; the second channel, with 1 and 127, lacks nothing.
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            bare = Conv(images, w)
            shifted = Conv(images, w, b)
            logits = Add(bare, shifted)
        }""",
        w=np.array([[127, 0.4, 0], [0, 1, 127]], np.float32).reshape(2, 3, 1, 1),
        b=np.array([5, 7], np.float32),
    )
    path = save(tmp_path / "m.onnx", model, PLAIN)
    report = correct_bias(path, quantized(path, black_and_white), black_and_white, out=tmp_path / "out.onnx")
    assert (report.layers, report.corrected, report.kept, report.images) == (2, 2, {}, 2)
    biases = constants(tmp_path / "out.onnx")
    np.testing.assert_allclose(biases["bare/corrected_bias"], [0.3, 0], atol=1e-4)
    np.testing.assert_allclose(biases["shifted/corrected_bias"], [5.3, 7], atol=1e-4)
    assert biases["bare/corrected_bias"].dtype == np.float32


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_then_gives_on_average_what_it_gives_as_float(layer, mobile, quantized, scenes, tensors, tmp_path):
    dataset = scenes(16, 16)
    rounded = quantized(mobile)
    shift_bias(rounded, layer, by=2)
    report = correct_bias(mobile, rounded, dataset, out=tmp_path / "out.onnx")
    assert f'Conv "{layer}"' not in report.kept
    assert report.divergence < report.divergence_before
    exact, before, after = (
        means(tensors, path, layer, dataset) for path in (mobile, rounded, tmp_path / "out.onnx")
    )
    assert np.abs(before - exact).max() > 0.2
    # Not exactly: ONNX Runtime rounds otherwise where it is asked for other tensors.
    np.testing.assert_allclose(np.median(after - exact, axis=0), 0, atol=2e-3)


@pytest.fixture
def cut_off(graph, save, scenes, tmp_path):
    """A function of frames: a model, its INT8 form that cuts off at 2 what reaches 127, and a data set of them."""
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            wide = Conv(images, w1)
            logits = Conv(wide, w2, b)
        }""",
        w1=np.array([127, 0, 0], np.float32).reshape(1, 3, 1, 1),
        w2=np.array([1, 0], np.float32).reshape(2, 1, 1, 1),
        b=np.array([0, 1.5], np.float32),
    )
    path = save(tmp_path / "m.onnx", model, PLAIN)

    def make(*frames):
        dataset = dataclasses.replace(scenes(4, 4, groups=(len(frames),)), frames=frames)
        calibrate(path, dataset, out=tmp_path / "m.ranges", method="minmax")
        found, manifest = read_ranges(tmp_path / "m.ranges"), read_manifest(tmp_path / "m.ranges", "ranges")
        cut = dataclasses.replace(found, amax=found.amax | {"wide": 2.0})
        write_with_manifest(tmp_path / "m.ranges", format_cache(cut), manifest)
        rounded = quantize(path, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx").path
        return path, rounded, dataset

    return make


def test_a_bias_that_takes_the_answers_further_away_is_put_back(cut_off, tmp_path):
    # One pixel in 16 is 127 and the rest are 1. Cut off, the logits lack 125/16 on average: given to all, that
    # makes "road" of the 15 which are "sky".
    frame = np.full((4, 4, 3), 2, np.uint8)
    frame[0, 0] = 255
    path, rounded, frames = cut_off(frame, frame[::-1].copy())
    report = correct_bias(path, rounded, frames, out=tmp_path / "out.onnx")
    further = "the answers with another are further from those of the float32 model"
    assert report.kept == {'Conv "logits"': further}
    assert report.divergence <= report.divergence_before
    np.testing.assert_array_equal(constants(report.path)["b"], [0, 1.5])


def test_a_frame_unlike_the_others_moves_no_bias_and_is_named(cut_off, scenes, tmp_path):
    # All of the first frame is cut off, nothing of the others.
    frame = np.full((4, 4, 3), 2, np.uint8)
    frame[:2, :, 1] = frame[:, :1, 2] = 255
    path, rounded, frames = cut_off(np.full((4, 4, 3), 255, np.uint8), frame, frame[::-1, ::-1].copy())
    report = correct_bias(path, rounded, frames, out=tmp_path / "out.onnx")
    biases = constants(report.path)
    bias = biases.get("logits/corrected_bias", biases.get("b"))
    np.testing.assert_allclose(bias, [0, 1.5], atol=0.02)
    assert list(report.furthest) == [frames.keys[0].name]
    assert report.furthest[frames.keys[0].name] > 100 * report.divergence


def shift_bias(path, layer, by):
    """Add a constant to the first bias of a layer, which may have none, in place."""
    model = load_onnx(path)
    node = next(node for node in model.graph.node if layer in node.output)
    old = next((numpy_helper.to_array(t) for t in model.graph.initializer if t.name in node.input[2:]), None)
    if old is None:
        weights = next(made for made in model.graph.node if node.input[1] in made.output).input[0]
        channels = next(t for t in model.graph.initializer if t.name == weights).dims[0]
        old = np.zeros(channels, np.float32)
    shifted = old + np.eye(1, len(old), dtype=np.float32)[0] * np.float32(by)
    model.graph.initializer.append(numpy_helper.from_array(shifted, "shifted"))
    node.input[2:] = ["shifted"]
    save_onnx(path, model)


def test_a_bias_that_two_layers_share_becomes_one_for_each(graph, save, quantized, black_and_white, tmp_path):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,1,4,4] logits) {
            first = Conv(images, w1, b)
            second = Conv(images, w2, b)
            logits = Add(first, second)
        }""",
        w1=np.array([127, 0.4, 0], np.float32).reshape(1, 3, 1, 1),
        w2=np.array([0, -0.4, 127], np.float32).reshape(1, 3, 1, 1),
        b=np.array([1], np.float32),
    )
    path = save(tmp_path / "m.onnx", model, PLAIN)
    correct_bias(path, quantized(path, black_and_white), black_and_white, out=tmp_path / "out.onnx")
    biases = constants(tmp_path / "out.onnx")
    assert "b" not in biases
    np.testing.assert_allclose(
        [biases[f"{n}/corrected_bias"][0] for n in ("first", "second")], [1.3, 0.7], atol=1e-4
    )


def test_what_takes_no_bias_is_named(graph, save, quantized, black_and_white, tmp_path):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            mean = ReduceMean<keepdims=0>(images, axes)
            product = MatMul(mean, w1)
            scaled = Gemm<beta=0.5>(mean, w1, b)
            sum = Add(product, scaled)
            column = Unsqueeze(sum, axes)
            conv = Conv(images, w2)
            computed = Conv(images, w2, made)
            both = Add(conv, computed)
            logits = Add(both, column)
            made = Relu(b)
        }""",
        axes=np.array([2, 3]),
        w1=(3, 2),
        w2=(2, 3, 1, 1),
        b=(2,),
    )
    model.graph.node.insert(0, model.graph.node.pop())
    path = save(tmp_path / "m.onnx", model, PLAIN)
    report = correct_bias(path, quantized(path, black_and_white), black_and_white, out=tmp_path / "out.onnx")
    assert report.kept == {
        'MatMul "product"': "it has no bias",
        'Gemm "scaled"': "its bias is multiplied by a factor",
        'Conv "computed"': "its bias is computed",
    }
    assert (report.layers, report.corrected) == (4, 1)


def test_a_layer_that_computes_in_float16_keeps_its_bias(mobile, scenes, tmp_path):
    calibrate(mobile, scenes(16, 16), out=tmp_path / "m.ranges", method="minmax")
    rounded = quantize(
        mobile, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx", kept=["expanded", "logits"]
    )
    report = correct_bias(mobile, rounded.path, scenes(16, 16), out=tmp_path / "out.onnx")
    assert {title for title, reason in report.kept.items() if reason == "it computes in float16"} == {
        'Conv "expanded"',
        'Conv "logits"',
    }
    before, after = constants(rounded.path), constants(tmp_path / "out.onnx")
    np.testing.assert_array_equal(after["b1/fp16"], before["b1/fp16"])
    assert not {"expanded/corrected_bias", "logits/corrected_bias"} & after.keys()


def test_the_model_tells_what_it_was(mobile, quantized, scenes, tmp_path):
    rounded = quantized(mobile)
    report = correct_bias(mobile, rounded, scenes(16, 16), out=tmp_path / "out.onnx")
    entries = metadata(load_onnx(tmp_path / "out.onnx"))
    assert entries[PRECISION_KEY] == "int8"
    assert json.loads(entries[PROVENANCE_KEY]) == {
        "checkpoint": "c0ffee",
        "onnx": sha256_file(mobile),
        "ranges": sha256_file(tmp_path / "m.ranges"),
        "uncorrected_onnx": sha256_file(rounded),
        "bias_images": report.images_sha256,
    }


def test_the_same_inputs_give_the_same_bytes(mobile, quantized, scenes, tmp_path):
    rounded = quantized(mobile)
    paths = (tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert len({correct_bias(mobile, rounded, scenes(16, 16), out=path).sha256 for path in paths}) == 1


def test_models_that_do_not_belong_together_are_refused(mobile, small, quantized, scenes, tmp_path):
    rounded, out = quantized(mobile), tmp_path / "out.onnx"
    with pytest.raises(CalibrationError, match=r"int8\.onnx was not made from .*small\.onnx"):
        correct_bias(small, rounded, scenes(), out=out)
    with pytest.raises(CalibrationError, match="is INT8 already"):
        correct_bias(rounded, rounded, scenes(16, 16), out=out)
    with pytest.raises(CalibrationError, match=r"mobile\.onnx is FP32; only what `quantize` made as INT8"):
        correct_bias(mobile, mobile, scenes(16, 16), out=out)
    assert not out.exists()


def test_biases_are_corrected_once_and_not_on_frames_to_measure_on(mobile, quantized, scenes, tmp_path):
    rounded, out = quantized(mobile), tmp_path / "out.onnx"
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        correct_bias(mobile, rounded, scenes(16, 16, split="val"), out=out)
    correct_bias(mobile, rounded, scenes(16, 16), out=out)
    with pytest.raises(CalibrationError, match="are corrected already"):
        correct_bias(mobile, out, scenes(16, 16), out=tmp_path / "again.onnx")


def test_tensorrt_rtx_takes_it(mobile, quantized, scenes, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx")
    correct_bias(mobile, quantized(mobile), scenes(16, 16), out=tmp_path / "out.onnx")
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse((tmp_path / "out.onnx").read_bytes()), parser.get_error(0)
