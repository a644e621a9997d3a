"""Kernels are compiled in a process of their own: in that of the tests Triton interprets them."""

import os
import re
import subprocess
import sys

import onnx
import pytest
import torch
import triton
from onnx import TensorProto, helper

from roadseg.export.kernels import (
    arguments_of,
    custom_nodes,
    tensor_types,
    why_not,
    write_kernels,
)
from roadseg.export.ops import CRISS_CROSS_ATTENTION, MAX_UNPOOL, OPS, UPSAMPLE_ARGMAX
from roadseg.export.ops.costs import single_node_model
from roadseg.runtime import ExportError, ModelSpec, UsageError, read_manifest, sha256_file
from roadseg.runtime.onnxfile import SPEC_KEY, save_onnx, set_metadata
from roadseg.runtime.plugins import TensorType, read_package

SPEC = ModelSpec("tiny", height=32, width=64, classes=("road", "sky"))
LABELS = {"size": [16, 32], "coordinates": "half_pixel"}
WITHOUT_COMPILER = """
import sys
from pathlib import Path
from roadseg.export import kernels

def refuse(*args):
    raise AssertionError("compiled again")

kernels.compile_call = refuse
kernels.write_kernels(Path(sys.argv[1]), ["8.7", "9.0"], Path(sys.argv[2]))
"""


def model(batch=1):
    """Two calls of attention, the second in FP16, labels of what it answers, and an operator that nobody knows."""
    ops = [helper.make_opsetid("", 20), helper.make_opsetid("roadseg", 1)]
    names = ("query", "key", "value")
    channels = {"query": 16, "key": 16, "value": 32}
    shapes = {name: (batch, channels[name], 8, 16) for name in names}
    nodes = [
        helper.make_node("CrissCrossAttention", names, ["wide"], "attend", domain="roadseg"),
        *(helper.make_node("Cast", [name], [f"half_{name}"], to=TensorProto.FLOAT16) for name in ("query", "key")),
        helper.make_node("Cast", ["wide"], ["half_wide"], to=TensorProto.FLOAT16),
        helper.make_node(
            "CrissCrossAttention", ["half_query", "half_key", "half_wide"], ["y"], "attend_half", domain="roadseg"
        ),
        helper.make_node("Unheard", ["y"], ["z"], "unheard", domain="roadseg"),
        helper.make_node("UpsampleArgmax", ["y"], ["labels"], "label", domain="roadseg", **LABELS),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [
        helper.make_tensor_value_info("z", TensorProto.FLOAT16, shapes["value"]),
        helper.make_tensor_value_info("labels", TensorProto.UINT8, (batch, 16, 32)),
    ]
    graph = helper.make_graph(nodes, "three", inputs, outputs)
    functions = [op.function(20) for op in (CRISS_CROSS_ATTENTION, UPSAMPLE_ARGMAX)]
    made = helper.make_model(graph, opset_imports=ops, ir_version=10, functions=functions)
    set_metadata(made, {SPEC_KEY: SPEC.to_json()})
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, its package as the command compiles it in a fresh cache, and the package from that cache alone."""
    folder = tmp_path_factory.mktemp("kernels")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    save_onnx(folder / "m.onnx", model())
    gpus = ["--compute-capability", "8.7", "--compute-capability", "9.0"]
    for command in (
        ["-m", "roadseg", "kernels", folder / "m.onnx", *gpus, "--out", folder / "m.kernels"],
        ["-c", WITHOUT_COMPILER, folder / "m.onnx", folder / "again.kernels"],
    ):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def package(files):
    return read_package(files / "m.kernels", sha256_file(files / "m.onnx"))


def test_every_call_has_a_kernel_for_every_gpu_in_the_type_of_its_graph(package):
    assert {node: set(by_gpu) for node, by_gpu in package.launches.items()} == {
        "attend": {"8.7", "9.0"},
        "attend_half": {"8.7", "9.0"},
        "label": {"8.7", "9.0"},
    }
    for node, dtype in (("attend", "float32"), ("attend_half", "float16")):
        launch = package.launches[node]["8.7"]
        assert launch.inputs == tuple(TensorType(dtype, (1, c, 8, 16)) for c in (16, 16, 32))
        assert launch.output == TensorType(dtype, (1, 32, 8, 16))


def test_ptx_takes_the_inputs_the_integers_and_the_output_of_its_launch(package):
    for compute_capability in package.compute_capabilities:
        for kernel in package.kernels(compute_capability).values():
            launch = kernel.launch
            head = kernel.ptx_text.partition(f".entry {launch.entry}(")[2].partition(")")[0]
            kinds = re.findall(r"\.param \.(u64|u32|b32|b64)", head)
            widths = [kind[1:] for kind in kinds]
            assert widths == ["64"] * len(launch.inputs) + ["32"] * len(launch.integers) + ["64"]
            assert f".target sm_{compute_capability.replace('.', '')}" in kernel.ptx_text
            assert f".reqntid {launch.threads}" in kernel.ptx_text


def test_code_has_a_name_of_its_own_under_which_an_assembler_takes_it(package, tmp_path):
    kernels = package.kernels("8.7")
    assert len({kernel.launch.entry for kernel in kernels.values()}) == 3
    ptxas = triton.backends.nvidia.compiler.get_ptxas(87).path
    for kernel in kernels.values():
        source = tmp_path / "kernel.ptx"
        source.write_text(kernel.ptx_text)
        command = [ptxas, "-v", "--gpu-name=sm_87", source, "-o", tmp_path / "kernel.cubin"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        assert f"Compiling entry function '{kernel.launch.entry}'" in said


def test_the_manifest_says_which_calls_have_kernels_and_why_one_has_none(files):
    manifest = read_manifest(files / "m.kernels", "kernels")
    assert manifest.spec == SPEC
    assert manifest.inputs == {"onnx": sha256_file(files / "m.onnx")}
    assert manifest.details["ops"] == {
        "attend": "CrissCrossAttention",
        "attend_half": "CrissCrossAttention",
        "label": "UpsampleArgmax",
    }
    assert manifest.details["left"] == {"unheard": "this roadseg has no operator Unheard"}
    assert set(manifest.versions) == {"triton"}


def test_what_was_compiled_once_comes_from_the_cache_with_the_same_bytes(files):
    assert (files / "again.kernels").read_bytes() == (files / "m.kernels").read_bytes()
    assert len(list((files / "cache" / "roadseg" / "kernels").glob("*.json"))) == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_node_leads_to_the_launch_of_the_call_it_stands_for(op, dtype):
    made = single_node_model(op, op.full_frame(dtype), 20)
    types = tensor_types(made)
    call = op.kernel.call_for(*arguments_of(made.graph.node[0], types))
    expected = op.kernel.call_for(*op.full_frame(dtype))
    assert (call.grid, call.signature, call.integers) == (expected.grid, expected.signature, expected.integers)
    assert call.constants.keys() == expected.constants.keys()
    assert all(call.constants[name] == pytest.approx(value) for name, value in expected.constants.items())


def test_labels_are_written_as_numbers_that_a_plugin_may_give(package):
    launch = package.launches["label"]["8.7"]
    assert launch.output == TensorType("float16", (1, 16, 32))
    assert launch.cast_to == "uint8"
    assert package.launches["attend"]["8.7"].cast_to == "float32"


def test_types_and_shapes_are_followed_through_functions():
    types = tensor_types(model())
    assert types["wide"] == TensorType("float32", (1, 32, 8, 16))
    assert types["half_wide"] == TensorType("float16", (1, 32, 8, 16))


def test_a_call_of_open_shape_has_no_kernel_and_says_what_to_do():
    made = model(batch="N")
    reasons = {node.name: why_not(node, tensor_types(made)) for node in made.graph.node if node.domain}
    assert reasons["attend"] == "the shape of query is open; export the model with a fixed batch"


def test_weights_of_the_model_are_inputs_like_others():
    x = torch.zeros(1, 2, 3, 4)
    _, attributes = MAX_UNPOOL.arguments(x, x.int(), [6, 8], 2, 2, 0)
    node = helper.make_node("MaxUnpool2d", ["x", "places"], ["y"], "unpool", domain="roadseg", **attributes)
    places = helper.make_tensor("places", TensorProto.INT32, x.shape, [0] * x.numel())
    described = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    graph = helper.make_graph([node], "one", [described], [], [places])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("roadseg", 1)]
    made = helper.make_model(graph, opset_imports=opsets, functions=[MAX_UNPOOL.function(20)])
    assert tensor_types(made)["places"] == TensorType("int32", (1, 2, 3, 4))
    assert tensor_types(made)["y"] == TensorType("float32", (1, 2, 6, 8))


def test_nodes_that_cannot_be_told_apart_are_refused(tmp_path):
    made = model()
    made.graph.node[4].name = "attend"
    with pytest.raises(ExportError, match="has several called 'attend', or one without a name"):
        custom_nodes(made, tmp_path / "m.onnx")


def test_a_model_without_custom_operators_has_nothing_to_compile(tmp_path):
    made = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[1] x) => (float[1] y) { y = Relu (x) }'
    )
    set_metadata(made, {SPEC_KEY: SPEC.to_json()})
    save_onnx(tmp_path / "m.onnx", made)
    with pytest.raises(UsageError, match="has no custom operators, so there is nothing to compile"):
        write_kernels(tmp_path / "m.onnx", ["8.7"], tmp_path / "m.kernels")


def test_nothing_is_written_where_kernels_are_interpreted(tmp_path):
    save_onnx(tmp_path / "m.onnx", model())
    with pytest.raises(UsageError, match="unset it to compile"):
        write_kernels(tmp_path / "m.onnx", ["8.7"], tmp_path / "m.kernels")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
