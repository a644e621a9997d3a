"""The study of INT8 beside its peers: what it asks of them, what it keeps, and how it tells that."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.int8 import (
    ROWS,
    SIDE_BY_SIDE,
    Context,
    entry_of,
    fill,
    line,
    overview,
    page,
    refusal,
    share,
    structure,
    wanted_rows,
)
from benchmarks.int8 import (
    row as row_of,
)
from roadseg.calib.lint import lint_model
from roadseg.calib.provenance import provenance
from roadseg.runtime import CAMVID, Key, LabelSet, ModelSpec, RoadsegError, Sample, Segmenter, sha256_file
from roadseg.runtime.onnxfile import PROVENANCE_KEY, SPEC_KEY, load_onnx, save_onnx, set_metadata

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu-2core"
SPEC = ModelSpec("small", 8, 8, classes=("road", "sky"))


@dataclasses.dataclass(frozen=True)
class Noise:
    """Frames of noise, as a data set."""

    keys: tuple[Key, ...] = tuple(Key(str(i), "") for i in range(12))
    split: str = "train"
    name: str = "noise"
    label_set: LabelSet = CAMVID

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.keys[index], np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of 8x8 to labels of two classes, by two convolutions: 64 * 108 and 64 * 8 multiply-adds."""
    small = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        small (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            images = Transpose<perm=[0,3,1,2]>(bytes)
            first = Conv<pads=[1,1,1,1]>(images, w1, b1)
            active = Relu(first)
            logits = Conv(active, w2)
            best = ArgMax<axis=1, keepdims=0>(logits)
            labels = Cast<to=2>(best)
        }"""
    )
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape) for name, shape in {"w1": (4, 3, 3, 3), "w2": (2, 4, 1, 1)}.items()}
    for name, values in (weights | {"b1": np.zeros(4)}).items():
        small.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    set_metadata(small, {SPEC_KEY: SPEC.to_json(), PROVENANCE_KEY: '{"checkpoint":"c0ffee"}'})
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    save_onnx(path, small)
    return path


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What ONNX Runtime makes of it, by row."""
    names = ("ORT", "ORT, per channel, symmetric, float biases")
    return {name: ROWS[name](model, Context(Noise(), (), tmp_path_factory.mktemp("made"))) for name in names}


def test_the_committed_page_is_made_of_the_figures():
    study = json.loads((RESULTS / "int8.json").read_text())
    assert (RESULTS / "int8.md").read_text() == page(study)
    assert {found["frames"] for entry in study["networks"] for found in entry["rows"].values()} == {101}


def test_the_readme_shows_all_networks_side_by_side():
    study = json.loads((RESULTS / "int8.json").read_text())
    assert overview(study["networks"]) in (RESULTS.parents[2] / "README.md").read_text()


def test_what_onnxruntime_makes_opens_as_ours_does_and_says_who_made_it(model, made):
    assert provenance(load_onnx(made["ORT"])) == {
        "checkpoint": "c0ffee",
        "onnx": sha256_file(model),
        "by onnx": onnx.__version__,
        "by onnxruntime": onnxruntime.__version__,
    }
    frames = [Noise()[i].frame for i in range(12)]
    ours, theirs = (np.stack([Segmenter.open(path).segment(f) for f in frames]) for path in (model, made["ORT"]))
    assert 0.9 < (ours == theirs).mean() < 1


def test_what_onnxruntime_makes_is_all_int8_but_tensorrt_takes_it_only_when_told(made, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    found = {name: structure(lint_model(load_onnx(path))) for name, path in made.items()}
    assert [(f["int8_mac_share"], f["float_layers"]) for f in found.values()] == [(1.0, 0), (1.0, 0)]
    assert [f["findings"].get("bias", 0) for f in found.values()] == [1, 0]
    said = [refusal(path, tmp_path) for path in made.values()]
    assert "Int32" in said[0]
    assert str(made["ORT"].parent) not in said[0]
    assert said[1] == ""


def test_a_row_has_everything_that_the_table_tells(model, made, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    labelled = [dataclasses.replace(Noise()[i], labels=np.full((8, 8), i % 2, np.uint8)) for i in range(4)]
    found = row_of(made["ORT"], Segmenter.open(model), labelled, tmp_path)
    assert found["frames"] == 4
    assert set(found["class_drops"]) == {"road", "sky"}
    assert np.mean(list(found["class_drops"].values())) == pytest.approx(found["miou_drop"])
    assert found["tools"] == {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    assert line("ORT", found).endswith(" | no |")


def test_a_share_counts_operations_and_nothing_is_found_where_nothing_is_int8(model):
    assert structure(lint_model(load_onnx(model))) == {
        "int8_mac_share": 0,
        "layers": 2,
        "float_layers": 2,
        "findings": {},
    }


@pytest.mark.skipif(importlib.util.find_spec("modelopt") is not None, reason="ModelOpt is installed here")
def test_a_tool_that_fails_is_told_by_its_last_line(model, tmp_path):
    with pytest.raises(RoadsegError, match=r"^ModuleNotFoundError: No module named 'modelopt'$"):
        ROWS["ModelOpt"](model, Context(Noise(), (), tmp_path, peers_python=Path(sys.executable)))


def test_rows_that_are_there_are_kept_those_that_failed_are_made_again():
    entry = {"rows": {"ORT": row(58.0), "FP32": {"error": "it failed"}}}
    made, saved = [], []

    def make_row(maker):
        made.append(maker)
        return row(59.0)

    fill(entry, {"FP32": "a", "FP16": "b", "ORT": "c"}, make_row, lambda: saved.append(list(entry["rows"])))
    assert made == ["a", "b"]
    assert saved == [["FP32", "ORT"], ["FP32", "FP16", "ORT"]]
    assert [r["miou_candidate"] for r in entry["rows"].values()] == [59.0, 59.0, 58.0]


def test_a_network_with_other_conditions_begins_anew_in_its_place():
    study = {"networks": []}
    first = entry_of(study, "a", "camvid", {"frames": 101})
    second = entry_of(study, "b", "camvid", {"frames": 101})
    first["rows"]["ORT"] = row(58.0)
    assert entry_of(study, "a", "camvid", {"frames": 101}) is first
    anew = entry_of(study, "a", "camvid", {"frames": 4})
    assert anew["rows"] == {}
    assert study["networks"] == [anew, second]


def test_rows_are_asked_for_by_patterns_of_their_names():
    assert list(wanted_rows(["FP32"], modelopt=False)) == ["FP32"]
    assert list(wanted_rows(["FP16", "ORT, per channel, s*"], modelopt=False)) == [
        "FP16",
        "ORT, per channel, symmetric, float biases",
    ]
    assert list(wanted_rows(None, modelopt=True)) == list(ROWS)
    left_out = [name for name in ROWS if name not in wanted_rows(None, modelopt=False)]
    assert left_out == ["ModelOpt", "ModelOpt, max"]
    assert set(SIDE_BY_SIDE) <= set(ROWS)


def row(miou: float, **changed: object) -> dict[str, object]:
    """A row with figures."""
    return {
        "miou_reference": 58.625,
        "miou_candidate": miou,
        "miou_drop": 58.625 - miou,
        "ci95": [0.1, 0.9],
        "pixel_agreement": 98.7654,
        "frames": 101,
        "class_drops": {"sky": -0.5, "pole": 2.25},
        "int8_mac_share": 0.99999,
        "layers": 51,
        "float_layers": 1,
        "findings": {"bias": 45, "sum": 7},
        "refused": "",
        "tools": {},
    } | changed


def test_a_row_of_the_table_is_its_figures():
    assert line("ORT", row(58.125)) == (
        "| ORT | 58.12 | 0.50 (0.10 to 0.90) | 98.77 | pole 2.25 | 99.99 % | 1 of 51 | 45 bias, 7 sum | yes |"
    )
    assert line("ORT", {"error": "it failed"}) == "| ORT | it failed |"


@pytest.mark.parametrize(("part", "text"), [(1.0, "100.00 %"), (0.99999, "99.99 %"), (0.0, "0.00 %")])
def test_only_all_operations_are_a_hundred_percent(part, text):
    assert share({"int8_mac_share": part}) == text


def test_the_page_tells_of_refusals_and_tools_once():
    tools = {"onnxruntime": "1.32.0", "onnx": "1.23.2"}
    refused = row(58.125, refused="TensorRT-RTX cannot build peer.onnx: Int32.", tools=tools)
    study = {"networks": []}
    about = {"size": [360, 480], "frames": 101, "onnxruntime": "1.32.0", "tensorrt_rtx": "1.7.1"}
    entry = entry_of(study, "fastscnn", "camvid", about | {"checkpoint_sha256": "0123456789abcdef"})
    entry["rows"] |= {"INT8, entropy": row(58.5), "ORT": refused, "ORT, per channel": refused}
    text = page(study)
    refused_cell = "58.12, 99.99 % INT8, not for TensorRT"
    overview = f"| fastscnn (camvid) | 58.62 | 58.50, 99.99 % INT8 |  |  |  | {refused_cell} |  |  |"
    assert overview in text.splitlines()
    assert "Frames of 360x480, 101 of them; ONNX Runtime 1.32.0, TensorRT-RTX 1.7.1; weights" in text
    assert text.count("ORT; ORT, per channel: TensorRT-RTX cannot build peer.onnx: Int32.") == 1
    assert text.endswith("\n\nPeers: onnxruntime 1.32.0, onnx 1.23.2.\n")
