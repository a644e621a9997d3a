"""Tiny models as `roadseg export` and `roadseg quantize` write them: frames in, labels out, spec inside."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from roadseg.runtime import ModelSpec
from roadseg.runtime.onnxfile import PRECISION_KEY, SPEC_KEY, save_onnx, set_metadata

SPEC = ModelSpec("tiny", height=32, width=64, classes=("road", "sky", "car", "tree"))


class Graph:
    """Nodes one after the other, named after what they make, with their constants."""

    def __init__(self):
        self.nodes = []
        self.constants = []

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"make_{output}", **attributes))
        return output

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def quantise(self, tensor, scale):
        """Q/DQ nodes behind `tensor`."""
        ends = [
            self.constant(f"{tensor}_scale", np.float32(scale)),
            self.constant(f"{tensor}_zero", np.int8(0)),
        ]
        quantised = self.add("QuantizeLinear", [tensor, *ends], f"{tensor}_q")
        return self.add("DequantizeLinear", [quantised, *ends], f"{tensor}_dq")

    def model(self, precision="fp32", batch=1):
        frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, (batch, *SPEC.size, 3))
        labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, (batch, *SPEC.size))
        graph = helper.make_graph(self.nodes, "tiny", [frames], [labels], self.constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own.domain", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        set_metadata(model, {SPEC_KEY: SPEC.to_json(), PRECISION_KEY: precision})
        return model


def segmenter(precision="fp32", batch=1):
    """Two convolutions at half the size, upsampled, argmax; weights drawn from a fixed seed."""
    graph = Graph()
    random = np.random.default_rng(0)
    weights = graph.constant("weights", random.normal(size=(8, 3, 3, 3)).astype(np.float32))
    head = graph.constant("head", random.normal(size=(4, 8, 1, 1)).astype(np.float32))
    scales = graph.constant("scales", np.array([1, 1, 2, 2], np.float32))

    def typed(tensor, scale):
        if precision == "fp16":
            return graph.add("Cast", [tensor], f"{tensor}_half", to=TensorProto.FLOAT16)
        return graph.quantise(tensor, scale) if precision == "int8" else tensor

    x = graph.add("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    x = graph.add("Transpose", [x], "images", perm=[0, 3, 1, 2])
    x = graph.add("Conv", [typed(x, 2), typed(weights, 0.02)], "conv", strides=[2, 2], pads=[1, 1, 1, 1])
    x = graph.add("Relu", [x], "relu")
    x = graph.quantise(x, 3) if precision == "int8" else x
    x = graph.add("Conv", [x, typed(head, 0.02)], "logits")
    x = graph.add(
        "Resize", [x, "", scales], "large", mode="linear", coordinate_transformation_mode="align_corners"
    )
    x = graph.add("ArgMax", [x], "classes", axis=1, keepdims=0)
    graph.add("Cast", [x], "labels", to=TensorProto.UINT8)
    return graph.model(precision, batch)


@pytest.fixture
def spec():
    """Of every model here."""
    return SPEC


@pytest.fixture
def save(tmp_path):
    """Writes a model and returns its path."""

    def write(model, name="m.onnx"):
        save_onnx(tmp_path / name, model)
        return tmp_path / name

    return write


@pytest.fixture
def save_segmenter(save):
    """Writes a model that segments, of a precision and batch ("N" for open)."""

    def write(precision="fp32", batch=1):
        return save(segmenter(precision, batch), f"{precision}.onnx")

    return write


@pytest.fixture
def graph():
    """A graph to be filled, from "frames" to "labels"."""
    return Graph()
