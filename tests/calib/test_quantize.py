import json
import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from roadseg.calib import calibrate, quantize
from roadseg.runtime import ArtifactError, CalibrationError, UsageError, manifest_path, sha256_file
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, SPEC_KEY, load_onnx, metadata, save_onnx


@pytest.fixture
def ranges(small, scenes, tmp_path):
    calibrate(small, scenes(), out=tmp_path / "small.ranges")
    return tmp_path / "small.ranges"


@pytest.fixture(scope="module")
def typed(fastscnn, scenes, tmp_path_factory):
    """Fast-SCNN in both precisions, with their reports."""
    folder = tmp_path_factory.mktemp("typed")
    calibrate(fastscnn, scenes(96, 128, groups=(4,)), out=folder / "ranges")
    return {
        "fp16": quantize(fastscnn, "fp16", out=folder / "fp16.onnx"),
        "int8": quantize(fastscnn, "int8", ranges=folder / "ranges", out=folder / "int8.onnx"),
    }


def answer(path: Path, frame):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"frames": frame[None]})[0]


def signal_to_noise_db(exact, rounded):
    return 10 * np.log10((exact**2).mean() / ((exact - rounded) ** 2).mean())


def exposed(path: Path, tensors, frame):
    """Values of tensors between the nodes."""
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(tensors), {"frames": frame[None]})


def test_the_report_counts_layers_and_their_share_of_the_work(small, ranges, tmp_path):
    report = quantize(small, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    assert (report.layers, report.typed_layers, report.mac_share, report.kept) == (2, 2, 1.0, {})
    assert report.sha256 == sha256_file(tmp_path / "int8.onnx")


def test_what_stays_float_is_left_out_of_the_share(graph, save, scenes, tmp_path):
    from roadseg.runtime import ModelSpec

    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
            features = Conv(images, w1)
            logits = MatMul(features, features)
        }""",
        w1=(2, 3, 1, 1),
    )
    spec = ModelSpec("gated", 4, 4, classes=("road", "sky"), io="tensor")
    path = save(tmp_path / "gated.onnx", model, spec)
    calibrate(path, scenes(4, 4), out=tmp_path / "gated.ranges")
    report = quantize(path, "int8", ranges=tmp_path / "gated.ranges", out=tmp_path / "int8.onnx")
    # 16 positions x 2 x 3 in INT8, 2 x 16 positions x 4 of two computed maps.
    assert report.mac_share == 96 / 224
    assert list(report.kept) == ['MatMul "logits"']


def test_metadata_stays_and_tells_precision_and_sources(small, ranges, tmp_path):
    before = metadata(load_onnx(small))
    for precision, file in (("fp16", None), ("int8", ranges)):
        out = tmp_path / f"{precision}.onnx"
        quantize(small, precision, ranges=file, out=out)
        after = metadata(load_onnx(out))
        assert after[SPEC_KEY] == before[SPEC_KEY]
        assert after[PRECISION_KEY] == precision
        sources = {"checkpoint": "c0ffee", "onnx": sha256_file(small)}
        assert json.loads(after[PROVENANCE_KEY]) == sources | ({"ranges": sha256_file(file)} if file else {})


def test_scales_in_the_graph_are_those_of_the_cache_bit_by_bit(small, ranges, tmp_path):
    quantize(small, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    model = load_onnx(tmp_path / "int8.onnx")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = {n.input[0]: n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    lines = [line.rpartition(": ") for line in ranges.read_text().splitlines()[1:]]
    assert [name for name, _, _ in lines] == list(pairs)
    for name, _, digits in lines:
        assert struct.pack(">f", constants[pairs[name]].item()).hex() == digits


def test_the_same_inputs_give_the_same_bytes(small, ranges, tmp_path):
    for precision, file in (("fp16", None), ("int8", ranges)):
        hashes = {quantize(small, precision, ranges=file, out=tmp_path / name).sha256 for name in ("a", "b")}
        assert len(hashes) == 1


def test_a_typed_model_is_refused(small, ranges, tmp_path):
    quantize(small, "fp16", out=tmp_path / "fp16.onnx")
    with pytest.raises(CalibrationError, match="is FP16 already"):
        quantize(tmp_path / "fp16.onnx", "int8", ranges=ranges, out=tmp_path / "int8.onnx")


def test_ranges_of_another_model_are_refused(small, ranges, tmp_path):
    model = load_onnx(small)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w1"))
    save_onnx(small, model)
    with pytest.raises(CalibrationError, match=r"holds the ranges of another model .* Calibrate .* again"):
        quantize(small, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_ranges_without_an_intact_manifest_are_refused(small, ranges, tmp_path):
    text = manifest_path(ranges).read_text()
    manifest_path(ranges).write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ArtifactError, match="was edited"):
        quantize(small, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    manifest_path(ranges).unlink()
    with pytest.raises(ArtifactError, match="has no manifest"):
        quantize(small, "int8", ranges=ranges, out=tmp_path / "int8.onnx")


def test_ranges_are_needed_for_int8_and_for_nothing_else(small, ranges, tmp_path):
    with pytest.raises(UsageError, match="INT8 needs the ranges"):
        quantize(small, "int8", out=tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="FP16 takes no ranges"):
        quantize(small, "fp16", ranges=ranges, out=tmp_path / "x.onnx")


def test_the_rest_of_an_int8_model_is_float16_unless_asked_otherwise(small, ranges, tmp_path):
    reports = [
        quantize(small, "int8", ranges=ranges, out=tmp_path / f"{rest}.onnx", rest=rest)
        for rest in ("fp16", "fp32")
    ]
    assert [report.precision for report in reports] == ["int8", "int8"]
    assert quantize(small, "int8", ranges=ranges, out=tmp_path / "default.onnx").sha256 == reports[0].sha256
    casts = [
        [node.input[0] for node in load_onnx(report.path).graph.node if node.op_type == "Cast"]
        for report in reports
    ]
    assert casts == [["frames", "logits", "best"], ["frames", "best"]]


def test_only_int8_models_have_a_rest(small, tmp_path):
    with pytest.raises(UsageError, match="only INT8 models have a rest"):
        quantize(small, "fp16", out=tmp_path / "x.onnx", rest="fp32")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(("precision", "agreement"), [("fp16", 0.99), ("int8", 0.85)])
def test_fast_scnn_gives_the_same_labels(fastscnn, typed, scenes, precision, agreement):
    # Random weights leave the classes close together: trained ones agree more.
    frames = scenes(96, 128, groups=(6,)).frames[4:]
    same = [(answer(fastscnn, frame) == answer(typed[precision].path, frame)).mean() for frame in frames]
    assert np.mean(same) > agreement


def test_every_layer_of_fast_scnn_keeps_its_signal_above_the_noise(fastscnn, typed, scenes):
    from roadseg.calib.graph import Graph

    layers = list(Graph(onnx.load(fastscnn)).layer_macs())
    frame = scenes(96, 128, groups=(6,)).frames[5]
    exact, rounded = (exposed(path, layers, frame) for path in (fastscnn, typed["int8"].path))
    ratios = [signal_to_noise_db(e, r) for e, r in zip(exact, rounded, strict=True)]
    assert ratios[0] > 30
    assert min(ratios) > 8


def test_fast_scnn_s_work_is_all_but_in_int8_and_the_file_a_third(fastscnn, typed):
    assert typed["int8"].mac_share > 0.999
    assert typed["fp16"].mac_share == 1.0
    # Names take a fortieth, and are longer the more was exported before.
    assert typed["int8"].path.stat().st_size < 0.34 * fastscnn.stat().st_size


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds_both(typed, precision):
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(typed[precision].path.read_bytes()), parser.get_error(0)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None
