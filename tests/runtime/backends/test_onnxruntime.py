"""Models in ONNX Runtime answer as numpy does, and what is no model is refused."""

import dataclasses
import sys

import numpy as np
import pytest

from roadseg.runtime import ArtifactError, EngineError, ModelSpec, SpecError
from roadseg.runtime.backends.onnxruntime import OnnxRuntimeBackend
from roadseg.runtime.onnxfile import PRECISION_KEY, SPEC_KEY, load_onnx, save_onnx

pytest.importorskip("onnxruntime", reason="needs the extra export")

SPEC = ModelSpec("tiny", height=4, width=6, classes=("dark", "red", "green"))
# Normalised back to 0..255, so that the same constant 100 is the limit.
TENSOR = dataclasses.replace(SPEC, io="tensor", mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)


def expected(frames):
    """The largest of 100, red and green."""
    dark = np.full(frames.shape[:3], 100)
    return np.stack([dark, frames[..., 0], frames[..., 1]]).argmax(axis=0)


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize("spec", [SPEC, TENSOR], ids=["frame", "tensor"])
@pytest.mark.parametrize("number", [0, 1, 4, 6])
def test_any_number_of_frames_is_answered(brightest, frames, tmp_path, batch, spec, number):
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx", batch, spec))
    given = frames(number)
    labels = backend(given)
    np.testing.assert_array_equal(labels, expected(given))
    assert labels.shape == (number, 4, 6)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("spec", [SPEC, TENSOR], ids=["frame", "tensor"])
def test_the_lowest_class_wins_a_tie(brightest, tmp_path, spec):
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx", 1, spec))
    assert (backend(np.full((1, 4, 6, 3), 100, np.uint8)) == 0).all()
    assert (backend(np.full((1, 4, 6, 3), 101, np.uint8)) == 1).all()


def test_a_network_trained_on_bgr_gets_bgr(brightest, tmp_path):
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx", 1, dataclasses.replace(TENSOR, channels="bgr")))
    blue = np.zeros((1, 4, 6, 3), np.uint8)
    blue[..., 2] = 255
    # Blue stands where the network looks for red.
    assert (backend(blue) == 1).all()


def test_turned_and_read_only_frames_are_taken(brightest, frames, tmp_path):
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx"))
    turned = frames(1)[..., ::-1]
    turned.flags.writeable = False
    np.testing.assert_array_equal(backend(turned), expected(turned))


def test_the_name_tells_version_provider_and_precision(brightest, tmp_path):
    import onnxruntime

    entries = {SPEC_KEY: SPEC.to_json(), PRECISION_KEY: "int8"}
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx", entries=entries))
    assert backend.name == f"ONNX Runtime {onnxruntime.__version__} {backend.name.split()[3]} int8"
    assert backend.name.split()[3] in ("CPU", "CUDA")
    assert backend.spec == SPEC


def test_frames_of_another_size_are_refused(brightest, frames, tmp_path):
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx"))
    with pytest.raises(SpecError, match=r"takes frames of shape \(N, 4, 6, 3\)"):
        backend(frames(1, SPEC.resized((6, 4))))


def test_a_model_without_spec_is_refused(brightest, tmp_path):
    with pytest.raises(ArtifactError, match=r"m\.onnx holds no ModelSpec.*roadseg export"):
        OnnxRuntimeBackend(brightest(tmp_path / "m.onnx", entries={}))


def test_a_spec_that_does_not_fit_its_graph_is_an_error_of_the_engine(brightest, frames, tmp_path):
    wrong = SPEC.resized((8, 6))
    backend = OnnxRuntimeBackend(brightest(tmp_path / "m.onnx", entries={SPEC_KEY: wrong.to_json()}))
    with pytest.raises(EngineError, match=r"m\.onnx failed in ONNX Runtime: .*dimensions"):
        backend(frames(1, wrong))


def test_a_model_cut_short_anywhere_is_refused(brightest, tmp_path, capfd):
    whole = brightest(tmp_path / "m.onnx").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"cut\.onnx (is not an ONNX model|holds no)"):
            OnnxRuntimeBackend(tmp_path / "cut.onnx")
    assert capfd.readouterr().err == ""


def test_another_opset_is_named_in_one_sentence(brightest, tmp_path):
    path = brightest(tmp_path / "m.onnx")
    model = load_onnx(path)
    model.opset_import[0].version = 99
    save_onnx(path, model)
    with pytest.raises(ArtifactError, match=r"m\.onnx uses ONNX opset 99; roadseg works with 17 to 23\."):
        OnnxRuntimeBackend(path)


@pytest.mark.parametrize(
    ("length", "why"),
    [
        (100, "Failed to load model because protobuf parsing failed"),
        (None, r"Unsupported model IR version: 99, max supported IR version: \d+"),
    ],
)
def test_where_onnx_is_missing_onnx_runtime_says_why(brightest, tmp_path, monkeypatch, length, why):
    path = brightest(tmp_path / "m.onnx")
    model = load_onnx(path)
    model.ir_version = 99
    path.write_bytes(model.SerializeToString()[:length])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArtifactError, match=rf"m\.onnx cannot be opened .*\({why}\)\. Export it again\."):
        OnnxRuntimeBackend(path)


def test_an_operator_that_nobody_knows_is_named(brightest, tmp_path):
    path = brightest(tmp_path / "m.onnx")
    model = load_onnx(path)
    model.graph.node[0].op_type = "Foresee"
    save_onnx(path, model)
    with pytest.raises(ArtifactError, match=r"uses what this version does not know .*Foresee"):
        OnnxRuntimeBackend(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"m\.onnx cannot be read: No such file"):
        OnnxRuntimeBackend(tmp_path / "m.onnx")
