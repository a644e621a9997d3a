"""A network with a custom operator goes the whole way."""

import os
import shutil

import onnx
import pytest
import torch
from torch import nn

from roadseg import calib, engines
from roadseg.export import export
from roadseg.export.kernels import write_kernels
from roadseg.export.ops import CRISS_CROSS_ATTENTION
from roadseg.export.ops.compile import PTX_VERSIONS
from roadseg.runtime import ModelSpec, Segmenter, compare
from roadseg.runtime.cuda import find_gpu
from roadseg.train import open_data


class CrissCross(nn.Module):
    """Features at 1/4, and what they gather from their columns and rows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.query, self.key, self.value = (nn.Conv2d(32, channels, 1) for channels in (16, 16, 32))
        self.head = nn.Conv2d(32, 19, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + CRISS_CROSS_ATTENTION(self.query(x), self.key(x), self.value(x)))


@pytest.fixture(scope="module")
def scenes():
    return open_data("scenes:count=4", "train")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("criss_cross") / "m.onnx"
    export(CrissCross(), ModelSpec("criss_cross", 64, 128), path)
    return path


@pytest.mark.parametrize(("precision", "agreement"), [("fp16", 0.999), ("int8", 0.97)])
def test_it_is_quantised_built_and_answers_as_before(model, scenes, tmp_path, precision, agreement):
    pytest.importorskip("tensorrt_rtx")
    ranges = None
    if precision == "int8":
        ranges = tmp_path / "m.ranges"
        calib.calibrate(model, scenes, count=4, out=ranges)
    typed = tmp_path / "typed.onnx"
    calib.quantize(model, precision, out=typed, ranges=ranges)
    assert [function.name for function in onnx.load(typed).functions] == ["CrissCrossAttention"]
    assert compare(Segmenter.open(model), Segmenter.open(typed), scenes).pixel_agreement > agreement
    engines.build(typed, tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")


def test_it_takes_and_gives_float16_where_its_neighbours_do(model, tmp_path):
    report = calib.quantize(model, "fp16", out=tmp_path / "fp16.onnx")
    assert report.kept == {}
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "fp16.onnx"), data_prop=True).graph
    (node,) = (node for node in graph.node if node.op_type == "CrissCrossAttention")
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert {types[name] for name in [*node.input, *node.output]} == {onnx.TensorProto.FLOAT16}


def test_an_engine_says_which_road_its_operators_took_and_refuses_one_that_it_cannot_go(roadseg, model, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    build = ["build", model, "--flavour", "rtx", "--compute-capability", "8.6", "--out", tmp_path / "m.plan"]
    required = roadseg(*build, "--plugins", "require")
    assert required.code == 1
    assert "CrissCrossAttention (node '/CrissCrossAttention'): TensorRT-RTX takes no plugins" in required.err
    assert not (tmp_path / "m.plan").exists()
    assert roadseg(*build).code == 0
    details = roadseg("inspect", tmp_path / "m.plan", "--json").json["details"]
    assert details["roads"] == {"/CrissCrossAttention": {"op": "CrissCrossAttention", "road": "function"}}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_with_plugins_answers_as_its_definitions_do(model, scenes, tmp_path, precision):
    for module in ("tensorrt", "pycuda", "triton"):
        pytest.importorskip(module)
    gpu = find_gpu().compute_capability
    if os.environ.get("TRITON_INTERPRET") == "1" or gpu not in PTX_VERSIONS:
        pytest.skip(f"nothing is compiled for {gpu} in this run")
    typed = tmp_path / "m.onnx"
    if precision == "fp32":
        shutil.copy(model, typed)
    else:
        calib.quantize(model, precision, out=typed)
    write_kernels(typed, [gpu], tmp_path / "m.kernels")
    settings = engines.Settings(plugins="require")
    manifest = engines.build(typed, tmp_path / "m.plan", flavour="tensorrt", settings=settings)
    assert {road["road"] for road in manifest.details["roads"].values()} <= {"plugin-aot", "plugin-v3"}
    answers = compare(Segmenter.open(typed), Segmenter.open(tmp_path / "m.plan"), scenes)
    assert answers.pixel_agreement > 0.99


@pytest.fixture(scope="module")
def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 8, 1), nn.ReLU(), nn.Conv2d(16, 19, 1))


@pytest.mark.parametrize("batch", [1, None])
def test_a_model_may_end_in_one_operator(small_net, scenes, tmp_path, batch):
    pytest.importorskip("tensorrt_rtx")
    spec = ModelSpec("small", 64, 128)
    export(small_net, spec, tmp_path / "plain.onnx", batch=batch)
    report = export(small_net, spec, tmp_path / "fused.onnx", batch=batch, fuse_tail=True)
    assert report.agreement == 1
    assert report.nodes["UpsampleArgmax"] == 1
    assert not {"Resize", "ArgMax"} & report.nodes.keys()
    calib.quantize(tmp_path / "fused.onnx", "fp16", out=tmp_path / "fp16.onnx")
    plain = Segmenter.open(tmp_path / "plain.onnx")
    assert compare(plain, Segmenter.open(tmp_path / "fused.onnx"), scenes).pixel_agreement == 1
    assert compare(plain, Segmenter.open(tmp_path / "fp16.onnx"), scenes).pixel_agreement > 0.999
    engines.build(tmp_path / "fp16.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
