import dataclasses

import pytest

from roadseg.engines.model import read_model
from roadseg.engines.settings import Settings
from roadseg.engines.tensorrt import DIALECTS, choose_precision, dialect_for, read_ranges, with_header
from roadseg.runtime import BuildError, Manifest, UsageError, write_with_manifest

TYPED, _, LEGACY = DIALECTS


@pytest.mark.parametrize(
    ("version", "dialect"),
    [
        ("8.5.2.2", "legacy"),  # JetPack 5.1
        ("8.6.2", "legacy"),  # JetPack 6.0
        ("10.3.0", "legacy"),  # JetPack 6.1 and 6.2
        ("10.9.0.34", "legacy"),
        ("10.13.3.9", "typed"),  # JetPack 7.0
        ("10.16.2.10", "typed"),  # JetPack 7.2
        ("11.4.0.106", "typed"),
    ],
)
def test_the_dialect_follows_the_version(version, dialect):
    assert dialect_for(version).name == dialect


def test_a_tensorrt_without_uint8_inputs_is_refused():
    with pytest.raises(BuildError, match=r"TensorRT 8\.4\.1 takes no uint8 input"):
        dialect_for("8.4.1")


def test_a_typed_engine_has_the_precision_of_its_graph(save_segmenter):
    assert choose_precision(read_model(save_segmenter("int8")), TYPED, Settings()) == "int8"


def test_a_typed_engine_cannot_be_asked_for_another(save_segmenter):
    with pytest.raises(UsageError, match="reads precision from the graph"):
        choose_precision(read_model(save_segmenter()), TYPED, Settings(precision="fp16"))


def test_a_legacy_engine_has_the_precision_asked_for(save_segmenter):
    assert choose_precision(read_model(save_segmenter()), LEGACY, Settings(precision="fp16")) == "fp16"


def test_a_legacy_engine_takes_ranges_from_the_graph(save_segmenter):
    assert choose_precision(read_model(save_segmenter("int8")), LEGACY, Settings()) == "int8"


def test_int8_without_ranges_is_refused(save_segmenter):
    with pytest.raises(UsageError, match="needs ranges: make them with `roadseg calibrate`"):
        choose_precision(read_model(save_segmenter()), LEGACY, Settings(precision="int8"))


@pytest.mark.parametrize(("graph_precision", "precision"), [("int8", "int8"), ("fp32", "fp16")])
def test_ranges_that_tensorrt_would_leave_aside_are_refused(save_segmenter, tmp_path, graph_precision, precision):
    settings = Settings(precision=precision, ranges=tmp_path / "m.ranges")
    with pytest.raises(UsageError, match="would not be used"):
        choose_precision(read_model(save_segmenter(graph_precision)), LEGACY, settings)


@pytest.mark.parametrize(
    ("version", "header"),
    [
        ("8.5.2.2", b"TRT-8502-EntropyCalibration2"),
        ("8.6.1", b"TRT-8601-EntropyCalibration2"),
        ("10.3.0", b"TRT-100300-EntropyCalibration2"),
    ],
)
def test_the_cache_is_headed_as_this_tensorrt_expects(version, header):
    cache = b"TRT-100300-MinMaxCalibration\nimages: 3c010a14\nrelu: 3d00aa11\n"
    assert with_header(cache, version) == header + b"\nimages: 3c010a14\nrelu: 3d00aa11\n"


@pytest.fixture
def save_ranges(tmp_path, spec):
    def write(onnx_sha256):
        path = tmp_path / "m.ranges"
        manifest = Manifest("ranges", "", spec, {"onnx": onnx_sha256}, {})
        write_with_manifest(path, b"TRT-100300-EntropyCalibration2\n", manifest)
        return path

    return write


def test_ranges_of_this_model_are_read(save_segmenter, save_ranges):
    model = read_model(save_segmenter())
    assert read_ranges(save_ranges(model.sha256), model) == b"TRT-100300-EntropyCalibration2\n"


def test_ranges_of_another_model_are_refused(save_segmenter, save_ranges):
    model = read_model(save_segmenter())
    ranges = save_ranges(dataclasses.replace(model, sha256="0" * 64).sha256)
    with pytest.raises(BuildError, match="was collected on another model"):
        read_ranges(ranges, model)
