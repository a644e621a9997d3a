"""Tiny ONNX models whose answers numpy can work out."""

import numpy as np
import pytest

from roadseg.runtime import ModelSpec
from roadseg.runtime.onnxfile import SPEC_KEY, save_onnx, set_metadata

SPEC = ModelSpec("tiny", height=4, width=6, classes=("dark", "red", "green"))


@pytest.fixture
def frames():
    """Make random frames of a spec's size."""

    def make(number, spec=SPEC, seed=0):
        return np.random.default_rng(seed).integers(0, 256, (number, *spec.size, 3)).astype(np.uint8)

    return make


@pytest.fixture
def brightest():
    """Make a model that names the largest of a constant 100, red and green; the first of equals."""
    onnx = pytest.importorskip("onnx", reason="needs the extra export")

    def make(path, batch=1, spec=SPEC, entries=None):
        helper, types = onnx.helper, onnx.TensorProto
        frame = spec.io == "frame"
        shape = (batch, *spec.size, 3) if frame else (batch, 3, *spec.size)
        given = helper.make_tensor_value_info("in", types.UINT8 if frame else types.FLOAT, shape)
        if frame:
            out = helper.make_tensor_value_info("labels", types.UINT8, (batch, *spec.size))
            nodes = [
                helper.make_node("Cast", ["in"], ["float"], to=types.FLOAT),
                helper.make_node("Transpose", ["float"], ["images"], perm=(0, 3, 1, 2)),
            ]
        else:
            out = helper.make_tensor_value_info("logits", types.FLOAT, (batch, 3, *spec.size))
            nodes = [helper.make_node("Identity", ["in"], ["images"])]
        # A 1x1 convolution: logits (100, red, green) of pixels from 0 to 255.
        weights = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32).reshape(3, 3, 1, 1)
        bias = np.array([100, 0, 0], np.float32)
        constants = [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(bias, "bias")]
        nodes.append(helper.make_node("Conv", ["images", "weights", "bias"], ["logits"]))
        if frame:
            nodes += [
                helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
                helper.make_node("Cast", ["ids"], ["labels"], to=types.UINT8),
            ]
        graph = helper.make_graph(nodes, "brightest", [given], [out], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        set_metadata(model, {SPEC_KEY: spec.to_json()} if entries is None else entries)
        save_onnx(path, model)
        return path

    return make
