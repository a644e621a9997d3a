"""The faces of an operator, side by side."""

import onnx
import onnxruntime
import pytest
import torch

from roadseg.export.ops.costs import single_node_model

OPSET = 20


@pytest.fixture(scope="session")
def answer_of_function():
    """Compute a call of an operator in ONNX Runtime, by its model-local function."""

    def answer(op, *args):
        inputs, _ = op.arguments(*args)
        model = single_node_model(op, args, OPSET)
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        feeds = {name: x.numpy() for name, x in zip(op.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return answer
