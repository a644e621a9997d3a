import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch.nn.functional as F
from nets import Answers, Mongrel, randomise

from roadseg import export as package
from roadseg.export import ExportReport, convert, export, lint
from roadseg.runtime import CAMVID, ExportError, ModelSpec, UsageError, sha256_file
from roadseg.runtime.onnxfile import load_onnx, metadata, onnx_spec
from roadseg.train.models.fastscnn import FastSCNN


@pytest.fixture(scope="module")
def mongrel(tmp_path_factory, spec) -> ExportReport:
    out = tmp_path_factory.mktemp("mongrel") / "m.onnx"
    # Float64 holds the same weights, and a network in training mode has to be put right.
    return export(Mongrel().double().train(), spec, out, provenance={"weights": "seed 3", "b": "c"})


@pytest.fixture(scope="module")
def fastscnn() -> FastSCNN:
    net = FastSCNN(len(CAMVID.classes), aux=False)
    randomise(net)
    return net.eval()


def test_a_network_never_seen_before_exports(mongrel):
    assert mongrel.agreement == 1.0
    assert (mongrel.frames, mongrel.pixels, mongrel.synthetic) == (2, 2 * 44 * 60, True)
    assert mongrel.max_logit_error is None
    assert mongrel.messages == ()
    assert mongrel.parameters == sum(p.numel() for p in Mongrel().parameters())
    assert mongrel.sha256 == sha256_file(mongrel.path)


def test_nothing_is_left_that_could_have_been_computed_before(mongrel):
    left = {"Shape", "CastLike", "Constant", "Identity", "GatherND", "AdaptiveAveragePool"}
    assert not left & set(mongrel.nodes)
    assert mongrel.nodes["MatMul"] == 2  # the 5x3 bins, which do not divide 11x15
    assert mongrel.nodes["Expand"] == 1  # the 1x1 map, upsampled for a concatenation
    assert mongrel.nodes["BatchNormalization"] == 1  # the one behind a concatenation


def test_the_first_node_casts_the_frames_and_the_last_casts_the_labels(mongrel):
    nodes = load_onnx(mongrel.path).graph.node
    assert (nodes[0].op_type, list(nodes[0].input)) == ("Cast", ["frames"])
    assert (nodes[-1].op_type, list(nodes[-1].output)) == ("Cast", ["labels"])


def test_the_model_says_what_it_is_and_what_it_was_made_from(spec, mongrel):
    model = load_onnx(mongrel.path)
    assert onnx_spec(model, mongrel.path) == spec
    assert json.loads(metadata(model)["roadseg.provenance"]) == {"b": "c", "weights": "seed 3"}
    assert metadata(model)["roadseg.precision"] == "fp32"
    assert set(metadata(model)) == {"roadseg.spec", "roadseg.provenance", "roadseg.precision"}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert mongrel.opset == 20


def test_another_process_writes_the_same_bytes(mongrel, tmp_path):
    script = (
        "from pathlib import Path; from nets import CLASSES, Mongrel\n"
        "from roadseg import export; from roadseg.runtime import ModelSpec\n"
        "spec = ModelSpec('mongrel', height=44, width=60, classes=CLASSES)\n"
        "export.export(Mongrel(), spec, Path('m.onnx'), provenance={'b': 'c', 'weights': 'seed 3'})\n"
    )
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {"PYTHONPATH": ":".join(path), "PYTHONHASHSEED": "7", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    assert (tmp_path / "m.onnx").read_bytes() == mongrel.path.read_bytes()


def test_names_are_unique_readable_and_the_same_for_other_weights(spec, mongrel):
    before = load_onnx(mongrel.path)
    retrained = Mongrel()
    for parameter in retrained.parameters():
        parameter.data.mul_(1.1)
    after = convert(retrained.eval(), spec, batch=1)
    names = [name for node in before.graph.node for name in node.output]
    assert names == [name for node in after.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    assert {"/stem/0/Conv", "/grow/0/ConvTranspose", "/squeeze/2/Gemm", "/MatMul_1"} <= set(names)
    assert "/grow/0/ConvTranspose.W" in {weight.name for weight in before.graph.initializer}
    assert not [name for name in names[:-1] if not name.startswith("/") or ":" in name]


def test_an_open_batch_takes_one_frame_or_three(spec, tmp_path, run):
    report = export(Mongrel(), spec, tmp_path / "m.onnx", batch=None)
    assert report.messages == ()
    model = load_onnx(report.path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    frames = np.random.default_rng(0).integers(0, 256, (3, 44, 60, 3), np.uint8)
    together = run(model, frames)
    assert together.shape == (3, 44, 60)
    np.testing.assert_array_equal(run(model, frames[1:2])[0], together[1])


def test_tensor_io_is_compared_by_logits(spec, tmp_path):
    report = export(Answers(F.gelu), dataclasses.replace(spec, io="tensor"), tmp_path / "m.onnx", batch=2)
    assert 0 < report.max_logit_error < 1e-4
    assert report.agreement == 1.0


def test_a_model_that_is_not_the_network_does_not_replace_the_old_one(spec, tmp_path):
    out = tmp_path / "m.onnx"
    out.write_bytes(b"the old one")
    calls = []

    def different_every_time(y):
        calls.append(1)
        return y.roll(len(calls), dims=1)

    with pytest.raises(ExportError, match=r"ONNX Runtime and PyTorch give the same label to \d+\.\d+% of 5280"):
        export(Answers(different_every_time), spec, out)
    assert out.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [out]


def test_what_tensorrt_will_not_take_is_in_the_report(spec, tmp_path):
    patches = Answers(lambda y: F.fold(F.unfold(y, 2, stride=2), (44, 60), 2, stride=2))
    report = export(patches, spec, tmp_path / "m.onnx")
    assert len(report.messages) == 1
    assert report.messages[0].startswith("Col2Im (/Col2Im): op unsupported by TensorRT")


@pytest.mark.parametrize(("batch", "opset"), [(0, 20), (-1, 20), (1, 17), (1, 99)])
def test_a_batch_or_opset_that_cannot_be_meant_is_refused(spec, tmp_path, batch, opset):
    with pytest.raises(UsageError, match=r"got (0|-1|17|99)\."):
        export(Answers(F.relu), spec, tmp_path / "m.onnx", batch=batch, opset=opset)


def test_the_front_door_is_the_function():
    assert package.export is export


def test_fastscnn_exports_and_answers_as_in_pytorch_on_road_scenes(fastscnn, shared_data, tmp_path, run):
    spec = ModelSpec("fastscnn", height=360, width=480, classes=CAMVID.classes)
    paths = sorted((shared_data / "camvid" / "val").glob("*"))[:2]
    frames = [cv2.imread(str(path))[..., ::-1].copy() for path in paths]
    report = export(fastscnn, spec, tmp_path / "m.onnx", frames=frames)
    assert report.agreement >= 0.9999
    assert (report.synthetic, report.pixels) == (False, 2 * 360 * 480)
    assert report.nodes["Conv"] == 45
    assert {"GatherND", "BatchNormalization"}.isdisjoint(report.nodes)
    assert report.messages == ()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "batch"), [((256, 512), None), ((1024, 2048), 1)])
def test_fastscnn_parses_at_other_sizes(fastscnn, size, batch):
    model = convert(fastscnn, ModelSpec("fastscnn", *size, classes=CAMVID.classes), batch)
    assert lint(model) == ()
