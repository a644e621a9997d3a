"""The study of INT8's repair: its table is made of its figures, and what it compares with is what it says."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.repair import CORRECTORS, EQUALISERS, by_weights, largest, nagel_factors, page
from roadseg.calib.equalise import seams
from roadseg.calib.graph import Graph
from roadseg.calib.observe import observe
from roadseg.runtime import ModelSpec
from roadseg.runtime.onnxfile import SPEC_KEY, load_onnx, save_onnx, set_metadata

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


def test_the_page_is_made_of_the_figures_and_lacks_none():
    found = json.loads((RESULTS / "repair.json").read_text())
    assert (RESULTS / "repair.md").read_text() == page(found)
    compared = {(row["equalised"], row["biases"]) for row in found["rows"]}
    assert compared == {(equaliser, corrector) for equaliser in EQUALISERS for corrector in CORRECTORS}
    assert {row["frames"] for row in found["rows"]} == {101}


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
