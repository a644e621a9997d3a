"""The faces of an operator, side by side."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

OPSET = 20


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def answer_of_function():
    """Compute a call of an operator in ONNX Runtime, by its model-local function."""

    def answer(op, *args):
        inputs, attributes = op.arguments(*args)
        node = helper.make_node(op.name, op.inputs, ["y"], domain=CUSTOM_DOMAIN, **attributes)
        graph = helper.make_graph([node], "g", [described(n, x) for n, x in zip(op.inputs, inputs, strict=True)],
                                  [described("y", op.reference(*args))])  # fmt: skip
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CUSTOM_DOMAIN, 1)]
        model = helper.make_model(graph, functions=[op.function(OPSET)], opset_imports=opsets, ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        feeds = {name: x.numpy() for name, x in zip(op.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return answer


def described(name, tensor):
    """Name, type and shape of an input or output."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(str(tensor.dtype).removeprefix("torch.")))
    return helper.make_tensor_value_info(name, kind, tensor.shape)
