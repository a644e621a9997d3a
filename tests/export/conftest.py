"""Graphs and frames that several tests use."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from roadseg.runtime import ModelSpec

sys.path.insert(0, str(Path(__file__).parent))  # nets.py is also imported by a process of its own

from nets import CLASSES


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return ModelSpec("mongrel", height=44, width=60, classes=CLASSES)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run():
    """A function that answers what a model gives for its inputs, in ONNX Runtime without any optimisation."""

    def answer(model: onnx.ModelProto | ir.Model, *inputs: np.ndarray) -> np.ndarray:
        proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return answer


@pytest.fixture
def graph():
    """A function that makes a model of ONNX text, with the shapes of all values known."""

    def parse(text: str, **weights: np.ndarray) -> ir.Model:
        proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "roadseg" : 1]>\n{text}')
        for name, array in weights.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))

    return parse


@pytest.fixture
def ops():
    """A function that lists the op types of a model in order."""

    def types(model: onnx.ModelProto | ir.Model) -> list[str]:
        return [node.op_type for node in (model.graph.node if isinstance(model, onnx.ModelProto) else model.graph)]

    return types
