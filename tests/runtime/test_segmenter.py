"""A model, ready to answer frames."""

import importlib.metadata
import sys

import numpy as np
import pytest

from roadseg.runtime import ArtifactError, MissingDependencyError, ModelSpec, Segmenter, SpecError, UsageError
from roadseg.runtime.segmenter import OPENERS_GROUP

SPEC = ModelSpec("tiny", height=4, width=6, classes=("dark", "red", "green"))


class Red:
    """A backend that answers what the red channel says."""

    name = "red"

    def __call__(self, frames):
        return frames[..., 0]


@pytest.fixture
def onnx_model(brightest, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    return brightest(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_an_onnx_model_is_opened_with_its_spec(onnx_model, kind):
    segmenter = Segmenter.open(kind(onnx_model))
    assert segmenter.spec == SPEC
    assert segmenter.backend.name.startswith("ONNX Runtime ")


def test_one_frame_is_answered_as_a_batch_of_one(onnx_model, frames):
    segmenter = Segmenter.open(onnx_model)
    given = frames(3)
    labels = segmenter.segment(given[1])
    assert labels.shape == (4, 6)
    np.testing.assert_array_equal(labels, segmenter.segment_batch(given)[1])


def test_the_size_of_a_model_can_be_insisted_on(onnx_model):
    assert Segmenter.open(onnx_model, size=(4, 6)).spec.size == (4, 6)
    with pytest.raises(SpecError, match=r"m\.onnx takes frames of 4x6, not 6x4\. Export the network at that size"):
        Segmenter.open(onnx_model, size=(6, 4))


@pytest.mark.parametrize("name", ["m.onnx", "m.plan", "m.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ArtifactError, match=f"{name} does not exist"):
        Segmenter.open(tmp_path / name)


@pytest.mark.parametrize("name", ["m.engine", "m", "m.onnx.bak", "m.pth"])
def test_an_unknown_suffix_lists_the_known(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"known are files ending in \.onnx, \.plan, \.safetensors\."):
        Segmenter.open(tmp_path / name)


@pytest.fixture
def register(monkeypatch):
    """Pretend that an installed package opens files ending in .red."""

    def entry(value):
        point = importlib.metadata.EntryPoint(".red", value, OPENERS_GROUP)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])

    return entry


def test_an_installed_package_can_open_further_files(tmp_path, monkeypatch, register):
    code = "from roadseg.runtime import *\n\ndef open_red(path, size):\n    return ModelSpec('red', *size), None"
    (tmp_path / "red_opener.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    register("red_opener:open_red")
    (tmp_path / "m.red").touch()
    assert Segmenter.open(tmp_path / "m.red", size=(2, 3)).spec.size == (2, 3)


def test_a_library_that_an_opener_lacks_is_named_with_its_extra(tmp_path, monkeypatch, register):
    (tmp_path / "torch_opener.py").write_text("import torch")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    register("torch_opener:open_red")
    (tmp_path / "m.red").touch()
    with pytest.raises(MissingDependencyError, match=r"opening .*m\.red needs torch_opener.*'roadseg\[train\]'"):
        Segmenter.open(tmp_path / "m.red")


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((6, 4, 3), np.uint8),
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 3)),
        np.zeros((4, 6, 4), np.uint8),
    ],
)
def test_a_frame_of_another_shape_or_type_is_refused(frame):
    with pytest.raises(SpecError, match=r"tiny takes frames of shape \(N, 4, 6, 3\) and type uint8"):
        Segmenter(SPEC, Red()).segment(frame)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_labels_of_any_frame_come_back_at_its_size(resize):
    pytest.importorskip("cv2", reason="needs the extra train")
    spec = ModelSpec("tiny", height=4, width=6, classes=("dark", "red", "green"), resize=resize)
    frame = np.zeros((40, 30, 3), np.uint8)
    frame[20:] = 2
    labels = Segmenter(spec, Red()).segment_fitted(frame)
    np.testing.assert_array_equal(labels, frame[..., 0])
