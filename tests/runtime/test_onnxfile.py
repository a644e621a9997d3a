"""ONNX files with a ModelSpec inside."""

import pytest

from roadseg.runtime import ArtifactError, ModelSpec
from roadseg.runtime.onnxfile import OPSETS, SPEC_KEY, load_onnx, metadata, onnx_spec, save_onnx, set_metadata

pytest.importorskip("onnx", reason="needs the extra export")

SPEC = ModelSpec("tiny", height=4, width=6, classes=("dark", "red", "green"))


@pytest.fixture
def path(brightest, tmp_path):
    return brightest(tmp_path / "m.onnx")


def test_a_model_comes_back_with_its_spec(path):
    assert onnx_spec(load_onnx(path), path) == SPEC


def test_the_same_model_has_the_same_bytes(path, tmp_path):
    save_onnx(tmp_path / "again.onnx", load_onnx(path))
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_metadata_is_replaced_and_sorted(path):
    model = load_onnx(path)
    set_metadata(model, {"b": "1", "a": "1"})
    set_metadata(model, {"b": "2"})
    assert metadata(model) == {"a": "1", "b": "2", SPEC_KEY: SPEC.to_json()}
    assert [entry.key for entry in model.metadata_props] == ["a", "b", SPEC_KEY]


def test_a_model_without_spec_is_refused(brightest, tmp_path):
    path = brightest(tmp_path / "m.onnx", entries={"other": "entry"})
    with pytest.raises(ArtifactError, match=r"m\.onnx holds no ModelSpec"):
        onnx_spec(load_onnx(path), path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "truncated"),
        ('{"height": 4, "width": 6}', "`name`"),
        ('{"name": "tiny", "height": 0, "width": 6}', "tiny: height and width must be positive, got 0x6"),
    ],
)
def test_a_spec_that_cannot_be_read_is_refused_by_file(brightest, tmp_path, text, why):
    path = brightest(tmp_path / "m.onnx", entries={SPEC_KEY: text})
    with pytest.raises(ArtifactError, match=rf"m\.onnx holds a ModelSpec that cannot be read .*{why}"):
        onnx_spec(load_onnx(path), path)


def test_a_model_cut_short_anywhere_is_refused(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 3):
        cut.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"cut\.onnx (is not an ONNX model|holds no)"):
            onnx_spec(load_onnx(cut), cut)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"no model at all"])
def test_another_kind_of_file_is_refused(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"m\.onnx (is not an ONNX model|holds no ONNX graph)"):
        load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("opset", [OPSETS.start - 1, OPSETS.stop])
def test_another_opset_is_named_with_those_that_work(path, opset):
    model = load_onnx(path)
    model.opset_import[0].version = opset
    save_onnx(path, model)
    with pytest.raises(ArtifactError, match=f"uses ONNX opset {opset}; roadseg works with 17 to 23"):
        load_onnx(path)


@pytest.mark.parametrize("opset", [OPSETS.start, OPSETS.stop - 1])
def test_the_ends_of_the_range_work(path, opset):
    model = load_onnx(path)
    model.opset_import[0].version = opset
    save_onnx(path, model)
    assert load_onnx(path).opset_import[0].version == opset
