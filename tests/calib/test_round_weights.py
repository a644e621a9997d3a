import itertools
import json

import numpy as np
import pytest
from onnx import numpy_helper

from roadseg.calib import calibrate, correct_bias, quantize, round_weights
from roadseg.calib.round_weights import better, compensate, round_rows, settle, squared_errors
from roadseg.runtime import CalibrationError, ModelSpec, sha256_file
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, load_onnx, metadata

PLAIN = ModelSpec("plain", 4, 4, classes=("road", "sky"), io="tensor", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LAYERS = ["stem", "expanded", "filtered", "projected", "logits"]
"""Of the fixture `mobile`."""


@pytest.fixture
def quantized(scenes, tmp_path):
    """A function that calibrates a model and makes it INT8."""

    def make(model, dataset=None, **settings):
        calibrate(model, dataset or scenes(16, 16), out=tmp_path / "m.ranges", method="minmax")
        return quantize(model, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx", **settings).path

    return make


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in load_onnx(path).graph.initializer}


def int8_weights(path):
    return {name: array for name, array in constants(path).items() if name.endswith("/int8")}


def problem(groups=3, outputs=4, inputs=5, positions=40):
    """Weights of a layer in steps of 1 with what its inputs, alike as those of networks are, add up to."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(groups, positions, inputs)) + 3 * rng.normal(size=(groups, positions, 1))
    return rng.normal(0, 3, (groups, outputs, inputs)), patches.transpose(0, 2, 1) @ patches


def test_what_one_weight_loses_the_other_takes_over():
    # Both read the same input: 0.4 and 0.4 of it are nearly 1, not 0 and 0. A third one reads another input.
    patches = np.array([[[1, 1, 0], [2, 2, 0], [0, 0, 1]]], float)
    weights = np.array([[[0.4, 0.4, 0.4]]])
    rounded = round_rows(weights, np.ones((1, 1)), patches.transpose(0, 2, 1) @ patches)
    assert sorted(rounded[0, 0, :2]) == [0, 1]
    assert rounded[0, 0, 2] == 0


def test_rounding_is_next_to_the_best_of_all_that_there_are():
    weights, moments = problem()
    steps = np.ones(weights.shape[:2])
    floors = np.floor(weights)
    choices = [floors + np.array(up) for up in itertools.product((-1, 0, 1, 2), repeat=weights.shape[2])]
    best = np.min([squared_errors(weights - choice, moments) for choice in choices], axis=0)
    nearest = squared_errors(weights - np.rint(weights), moments)
    found = squared_errors(weights - round_rows(weights, steps, moments), moments)
    assert found.sum() < 1.1 * best.sum() < 0.6 * nearest.sum()


def test_compensation_is_what_obq_s_formulas_give_input_by_input():
    # OBQ, equation 3, with the inverse of what is left taken anew after each input, in the same order.
    weights, moments = problem(groups=1)
    expected = np.empty_like(weights[0])
    order = list(np.argsort(-np.diag(moments[0])))
    for output, row in enumerate(weights[0]):
        left, indices = row.copy(), list(order)
        while indices:
            inverse = np.linalg.inv(moments[0][np.ix_(indices, indices)])
            first = indices[0]
            expected[output, first] = np.rint(left[first])
            left[indices] -= (left[first] - np.rint(left[first])) / inverse[0, 0] * inverse[0]
            indices = indices[1:]
    np.testing.assert_array_equal(compensate(weights, np.ones((1, 4)), moments)[0], expected)


def test_no_single_weight_can_be_moved_for_the_better():
    weights, moments = problem()
    steps = np.full(weights.shape[:2], 0.5)
    settled = settle(weights, steps, moments, np.rint(weights / 0.5))
    least = squared_errors(weights - settled * 0.5, moments)
    for i, by in itertools.product(range(weights.shape[2]), (-1, 1)):
        moved = settled.copy()
        moved[..., i] += by
        assert (squared_errors(weights - moved * 0.5, moments) >= least - 1e-9).all()


def test_weights_stay_within_eight_bits():
    weights, moments = problem()
    rounded = round_rows(weights * 100, np.ones(weights.shape[:2]), moments)
    assert np.abs(rounded).max() == 127


def test_inputs_that_are_always_0_are_rounded_to_the_nearest():
    weights, moments = problem()
    moments[:, 2] = moments[:, :, 2] = 0
    np.testing.assert_array_equal(
        round_rows(weights, np.ones(weights.shape[:2]), moments)[..., 2], np.rint(weights[..., 2])
    )
    silent = round_rows(weights, np.ones(weights.shape[:2]), np.zeros_like(moments))
    np.testing.assert_array_equal(silent, np.rint(weights))


def test_an_output_that_would_err_more_keeps_its_rounding():
    weights, nearest = np.array([[[0.4], [0.4]]]), np.array([[[0.0], [1.0]]])
    learned = 1 - nearest
    chosen = better(weights, np.ones((1, 2)), np.ones((1, 1, 1)), nearest, learned)
    assert chosen.ravel().tolist() == [0, 0]


def test_layers_err_less_on_the_inputs_that_they_have(mobile, quantized, scenes, tensors, tmp_path):
    dataset, before, after = scenes(16, 16), quantized(mobile), tmp_path / "out.onnx"
    report = round_weights(mobile, before, dataset, out=after)
    assert (report.layers, report.images) == (5, 5)
    assert {*report.rounded, *report.kept} == {f'Conv "{name}"' for name in LAYERS}
    assert all(layer.error_after < layer.error_before for layer in report.rounded.values())
    # By another road: what the float weights and both roundings of them make of the inputs in the rounded model.
    weights, steps = constants(mobile)["w3"][:, :, 0, 0], constants(after)["w3/axis0/scale"][:, None]
    name = next(node.input[0] for node in load_onnx(after).graph.node if "projected" in node.output)
    inputs = np.concatenate([seen[name][0].reshape(8, -1) for seen in tensors(after, [name], dataset)], axis=1)
    errors = [
        ((weights - constants(path)["w3/axis0/int8"][:, :, 0, 0] * steps) @ inputs) ** 2
        for path in (before, after)
    ]
    told = report.rounded['Conv "projected"']
    shares = [error.sum() / ((weights @ inputs) ** 2).sum() for error in errors]
    np.testing.assert_allclose([told.error_before, told.error_after], shares, rtol=1e-4)


def test_only_weights_change_and_the_report_counts_them(mobile, quantized, scenes, tmp_path):
    before = quantized(mobile)
    report = round_weights(mobile, before, scenes(16, 16), out=tmp_path / "out.onnx")
    old, new = load_onnx(before), load_onnx(tmp_path / "out.onnx")
    assert old.graph.node == new.graph.node
    assert constants(before).keys() == constants(tmp_path / "out.onnx").keys()
    changed = {
        name: int((array != constants(before)[name]).sum())
        for name, array in constants(tmp_path / "out.onnx").items()
        if not np.array_equal(array, constants(before)[name])
    }
    assert len(changed) > 2
    assert changed.keys() <= int8_weights(before).keys()
    assert sorted(changed.values()) == sorted(layer.moved for layer in report.rounded.values())


def test_transposed_convolutions_and_matrix_products_are_rounded_too(graph, save, quantized, scenes, tmp_path):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,9,9] logits) {
            up = ConvTranspose<strides=[2,2]>(images, w1)
            mean = ReduceMean<keepdims=0>(images, axes)
            product = MatMul(mean, w2)
            scaled = Gemm<transB=1, alpha=0.5>(mean, w3)
            sum = Add(product, scaled)
            column = Unsqueeze(sum, axes)
            logits = Add(up, column)
        }""",
        axes=np.array([2, 3]),
        w1=(3, 2, 3, 3),
        w2=(3, 2),
        w3=(2, 3),
    )
    path = save(tmp_path / "m.onnx", model, PLAIN)
    dataset = scenes(4, 4)
    report = round_weights(path, quantized(path, dataset), dataset, out=tmp_path / "out.onnx")
    assert report.layers == 3
    assert 'ConvTranspose "up"' in report.rounded
    assert {*report.rounded, *report.kept} == {'ConvTranspose "up"', 'MatMul "product"', 'Gemm "scaled"'}
    assert all(layer.error_after < layer.error_before for layer in report.rounded.values())


def test_what_is_left_as_it_is_says_why(graph, save, quantized, scenes, tmp_path):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            first = Conv(images, w1)
            again = Conv(first, w2)
            third = Conv(again, w2)
            ruled = Conv<auto_pad="SAME_UPPER">(third, w3)
            asked = Conv(ruled, w4)
            zero = Conv(asked, w5)
            sum = Add(asked, zero)
            logits = MatMul(w6, sum)
        }""",
        w1=(2, 3, 1, 1),
        w2=(2, 2, 1, 1),
        w3=(2, 2, 3, 3),
        w4=(2, 2, 1, 1),
        w5=np.zeros((2, 2, 1, 1), np.float32),
        w6=(4, 4),
    )
    path = save(tmp_path / "m.onnx", model, PLAIN)
    dataset = scenes(4, 4)
    report = round_weights(path, quantized(path, dataset, kept=["asked"]), dataset, out=tmp_path / "out.onnx")
    assert {**report.kept, 'Conv "first"': ""} == {
        'Conv "first"': "",
        'Conv "again"': "it shares its weights with another layer",
        'Conv "third"': "it shares its weights with another layer",
        'Conv "ruled"': "it pads by a rule",
        'Conv "asked"': "it stays float",
        'Conv "zero"': "no other rounding was found to err less",
        'MatMul "logits"': "it resamples a map, and was not learned",
    }


def test_only_the_first_layer_is_rounded_where_that_is_asked_for(mobile, quantized, scenes, tmp_path):
    before = quantized(mobile)
    report = round_weights(mobile, before, scenes(16, 16), out=tmp_path / "out.onnx", first_only=True)
    assert (report.layers, list(report.rounded)) == (1, ['Conv "stem"'])
    whole = round_weights(mobile, before, scenes(16, 16), out=tmp_path / "whole.onnx")
    assert report.rounded['Conv "stem"'] == whole.rounded['Conv "stem"']
    old, new = (
        {t.name: numpy_helper.to_array(t) for t in load_onnx(path).graph.initializer}
        for path in (before, report.path)
    )
    assert [name for name in old if not np.array_equal(old[name], new[name])] == ["w0/axis0/int8"]


def test_more_inputs_than_memory_is_good_for_are_left_alone(graph, save, quantized, scenes, tmp_path):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            wide = Conv(images, w1)
            logits = Conv(wide, w2)
        }""",
        w1=(8193, 3, 1, 1),
        w2=(2, 8193, 1, 1),
    )
    path = save(tmp_path / "m.onnx", model, PLAIN)
    report = round_weights(path, quantized(path, scenes(4, 4)), scenes(4, 4), out=tmp_path / "out.onnx", count=1)
    assert report.kept == {'Conv "logits"': "each output adds up 8193 inputs, more than 8192"}


def test_the_model_tells_what_it_was_and_biases_are_corrected_next(mobile, quantized, scenes, tmp_path):
    before, out = quantized(mobile), tmp_path / "out.onnx"
    report = round_weights(mobile, before, scenes(16, 16), out=out)
    corrected = correct_bias(mobile, out, scenes(16, 16), out=tmp_path / "corrected.onnx")
    network = load_onnx(tmp_path / "corrected.onnx")
    moved = [tensor for tensor in network.graph.initializer if tensor.name.endswith("/corrected_bias")]
    assert corrected.corrected == len(moved) > 0
    entries = metadata(network)
    assert entries[PRECISION_KEY] == "int8"
    assert json.loads(entries[PROVENANCE_KEY]) == {
        "checkpoint": "c0ffee",
        "onnx": sha256_file(mobile),
        "ranges": sha256_file(tmp_path / "m.ranges"),
        "unrounded_onnx": sha256_file(before),
        "rounding_images": report.images_sha256,
        "uncorrected_onnx": sha256_file(out),
        "bias_images": corrected.images_sha256,
    }
    np.testing.assert_equal(int8_weights(tmp_path / "corrected.onnx"), int8_weights(out))


def test_weights_are_rounded_once_and_before_biases_are_corrected(mobile, quantized, scenes, tmp_path):
    before, out = quantized(mobile), tmp_path / "out.onnx"
    correct_bias(mobile, before, scenes(16, 16), out=tmp_path / "corrected.onnx")
    with pytest.raises(
        CalibrationError, match=r"biases of .*corrected\.onnx are corrected already, for the weights"
    ):
        round_weights(mobile, tmp_path / "corrected.onnx", scenes(16, 16), out=out)
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        round_weights(mobile, before, scenes(16, 16, split="val"), out=out)
    assert not out.exists()
    round_weights(mobile, before, scenes(16, 16), out=out)
    with pytest.raises(CalibrationError, match=r"weights of .*out\.onnx are rounded already"):
        round_weights(mobile, out, scenes(16, 16), out=tmp_path / "again.onnx")


def test_models_that_do_not_belong_together_are_refused(mobile, small, quantized, scenes, tmp_path):
    before, out = quantized(mobile), tmp_path / "out.onnx"
    with pytest.raises(CalibrationError, match=r"int8\.onnx was not made from .*small\.onnx"):
        round_weights(small, before, scenes(), out=out)
    with pytest.raises(CalibrationError, match=r"mobile\.onnx is FP32; only what `quantize` made as INT8"):
        round_weights(mobile, mobile, scenes(16, 16), out=out)
    assert not out.exists()


def test_the_same_inputs_give_the_same_bytes(mobile, quantized, scenes, tmp_path):
    before = quantized(mobile)
    paths = (tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert len({round_weights(mobile, before, scenes(16, 16), out=path).sha256 for path in paths}) == 1
