"""The study of INT8's repair: its table is made of its figures, and what it compares with is what it says."""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.repair import (
    CONDITIONS,
    CORRECTORS,
    EQUALISERS,
    NAMES,
    PER_TENSOR,
    RANGES,
    by_weights,
    earlier_rows,
    largest,
    listed,
    merge,
    nagel_factors,
    page,
    ranges_by_method,
)
from roadseg.calib import METHODS, read_ranges
from roadseg.calib.equalise import seams
from roadseg.calib.graph import Graph
from roadseg.calib.observe import observe
from roadseg.runtime import ModelSpec
from roadseg.runtime.onnxfile import SPEC_KEY, load_onnx, save_onnx, set_metadata
from roadseg.train import open_data

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu-2core"
SPEC = ModelSpec("block", 8, 8, classes=("road", "sky"), io="tensor")


@pytest.fixture
def block(tmp_path):
    """A depthwise layer between two of 1x1."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[1,3,8,8] images) => (float[1,2,8,8] logits) {
            wide = Conv(images, w1)
            active = Relu(wide)
            deep = Conv<group=6, pads=[1,1,1,1]>(active, w2, b2)
            logits = Conv(deep, w3)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (6, 3, 1, 1), "w2": (6, 1, 3, 3), "b2": (6,), "w3": (2, 6, 1, 1)}.items():
        values = rng.normal(0, 1, shape) * (np.geomspace(0.1, 10, 6).reshape(6, 1, 1, 1) if name == "w1" else 1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    set_metadata(model, {SPEC_KEY: SPEC.to_json()})
    save_onnx(tmp_path / "block.onnx", model)
    return tmp_path / "block.onnx"


@pytest.fixture
def block_and_frames(block):
    """The block, and a data set for it."""
    return block, open_data("scenes:count=3,size=32x64", "train")


def test_the_page_is_made_of_the_figures_and_lacks_none():
    found = json.loads((RESULTS / "repair.json").read_text())
    assert (RESULTS / "repair.md").read_text() == page(found)
    assert found["conditions"].keys() == CONDITIONS.keys()
    compared = [tuple(row[name] for name in NAMES) for row in found["rows"]]
    order = list(itertools.product(EQUALISERS, RANGES, CORRECTORS))
    assert compared == [combination for combination in order if combination in compared]
    assert {row["frames"] for row in found["rows"]} == {101}


def row_of(equalised, method, repaired, miou=50.0):
    return {"equalised": equalised, "method": method, "repaired": repaired, "miou_candidate": miou}


def test_a_row_takes_the_place_of_its_own_kind_and_rows_stay_in_order():
    first, second = row_of("none", "entropy", "none"), row_of("none", "minmax", "weights rounded")
    assert merge(merge([], second), first) == [first, second]
    again = row_of("none", "minmax", "weights rounded", 60.0)
    assert merge([first, second], again) == [first, again]


def test_rows_of_another_network_or_runtime_are_measured_again(tmp_path):
    path = tmp_path / "repair.json"
    assert earlier_rows(path) == []
    rows = [row_of("none", "entropy", "none")]
    for conditions, kept in ((CONDITIONS, rows), (CONDITIONS | {"backend": "another"}, [])):
        path.write_text(json.dumps({"conditions": conditions, "rows": rows}))
        assert earlier_rows(path) == kept


def test_parts_are_named_as_rows_are():
    names = "none; weights rounded, then biases layer by layer"
    assert listed(CORRECTORS)(names) == ["none", "weights rounded, then biases layer by layer"]
    with pytest.raises(argparse.ArgumentTypeError, match="'all' is none of none; weights"):
        listed(EQUALISERS)("all")


def test_ranges_by_tensor_are_chosen_from_all_methods(block_and_frames, tmp_path):
    model, frames = block_and_frames
    paths = ranges_by_method(model, frames, tmp_path, ["minmax", PER_TENSOR])
    assert paths.keys() == {*METHODS, PER_TENSOR}
    found = {name: read_ranges(path).amax for name, path in paths.items()}
    for tensor, amax in found.pop(PER_TENSOR).items():
        assert amax in [ranges[tensor] for ranges in found.values()]
    assert ranges_by_method(model, frames, tmp_path, ["mse"]).keys() == {"mse"}


def test_nagel_s_rule_gives_a_channel_s_weights_one_range_and_the_network_the_same_answers(block, tmp_path):
    equal = by_weights(block, None, tmp_path / "equal.onnx")
    graph = Graph(load_onnx(equal))
    for seam in seams(graph):
        np.testing.assert_allclose(nagel_factors(graph, seam), 1, rtol=0.01)
        np.testing.assert_allclose(
            largest(graph, seam.before, (2, 3)), largest(graph, seam.after[0], (1, 3)), rtol=0.02
        )
    frames = [np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)]
    before, after = (
        next(observe(load_onnx(path), SPEC, ["logits"], frames, "look"))["logits"] for path in (block, equal)
    )
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())
