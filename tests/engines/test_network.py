import numpy as np
import pytest
from onnx import TensorProto, helper

from roadseg.engines import build
from roadseg.engines.network import build_failure
from roadseg.runtime import BuildError

VERSION = pytest.importorskip("tensorrt_rtx").__version__


@pytest.fixture
def refusal(graph, save, tmp_path):
    """The message with which building `graph` fails, from where the model is named."""

    def fail():
        with pytest.raises(BuildError) as refused:
            build(save(graph.model()), tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
        begin = f"TensorRT-RTX {VERSION} cannot build {tmp_path / 'm.onnx'}: "
        assert str(refused.value).startswith(begin)
        return str(refused.value)[len(begin) :]

    return fail


def test_every_op_that_tensorrt_lacks_is_named_with_its_node(graph, refusal):
    graph.add("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    graph.add("Unique", ["pixels"], "unique")
    graph.add("Det", ["unique"], "labels")
    assert refusal() == (
        "op Unique (node 'make_unique') is not supported. op Det (node 'make_labels') is not supported."
    )


def test_an_op_of_ones_own_is_not_called_a_plugin(graph, refusal):
    graph.add("RoadOp", ["frames"], "labels", domain="own.domain")
    assert refusal() == "op RoadOp (node 'make_labels') is not supported."


def test_an_op_inside_a_local_function_is_found(graph, save, tmp_path):
    graph.add("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    graph.add("Block", ["pixels"], "labels", domain="own.domain")
    model = graph.model()
    body = [helper.make_node("Unique", ["x"], ["y"], name="inside")]
    model.functions.append(
        helper.make_function("own.domain", "Block", ["x"], ["y"], body, [helper.make_opsetid("", 20)])
    )
    with pytest.raises(BuildError, match=r"op Unique \(node 'inside'\) is not supported\.$"):
        build(save(model), tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")


def test_an_attribute_that_tensorrt_lacks_is_quoted(graph, refusal):
    scales = graph.constant("scales", np.array([1, 2, 2, 1], np.float32))
    graph.add("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    graph.add("Resize", ["pixels", "", scales], "labels", mode="linear", antialias=1)
    assert refusal() == "op Resize (node 'make_labels'): Antialiasing is not supported currently."


def test_a_transposed_uint8_input_is_explained_without_a_cuda_error(graph, refusal):
    graph.add("Transpose", ["frames"], "labels", perm=[0, 3, 1, 2])
    message = refusal()
    assert message.startswith(
        "op Transpose (node 'make_labels'): make_labels: first input has type UInt8 but must"
    )
    assert "cuda" not in message.lower()


def test_an_output_that_is_no_label_map_is_refused(graph, save, tmp_path):
    graph.add("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    graph.add("ArgMax", ["pixels"], "labels", axis=3, keepdims=0)
    model = graph.model()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(
        BuildError, match="labels is INT64, but inputs and outputs of a plan are one of uint8, float32"
    ):
        build(save(model), tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")


@pytest.mark.parametrize(
    "message",
    [
        "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for "
        "node conv1. In computeCosts at /_src/optimizer.cpp:4)",
        "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested size was 800 bytes.)",
    ],
)
def test_running_out_of_memory_comes_with_advice(message):
    text = build_failure("TensorRT 10.3.0", "m.onnx", [message])
    assert text.startswith("TensorRT 10.3.0 cannot build m.onnx: ")
    assert text.endswith("allow less workspace, or export the model at a smaller size or batch.")


def test_any_other_failure_is_only_quoted():
    said = (
        "IBuilder::build: Error Code 4: API Usage Error (Network has no outputs. In check at /_src/network.cpp:4)"
    )
    assert build_failure("TensorRT 10.3.0", "m.onnx", [said]) == (
        "TensorRT 10.3.0 cannot build m.onnx: Network has no outputs."
    )
