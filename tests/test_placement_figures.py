"""The study of INT8 placement covers the zoo, and its table is made of its rows."""

import json
from pathlib import Path

import pytest

from benchmarks.placement import FLOAT_SIDES, counted, readers_in, table
from roadseg.train import MODELS

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu-2core"
KNOWN = {
    "it multiplies by a batch of constant matrices in float",
    "both its factors are computed, and float",
    "both its factors are computed, and one of them is float",
}
"""Why a layer may be float."""


@pytest.fixture(scope="module")
def study():
    return json.loads((FOLDER / "placement.json").read_text())


def test_every_network_is_in_it_and_was_built(study):
    assert [row["network"] for row in study["rows"]] == list(MODELS)
    assert {row["network"]: row.get("error") or row["refused"] for row in study["rows"]} == dict.fromkeys(
        MODELS, ""
    )


def test_every_float_layer_has_a_known_reason_and_is_counted(study):
    for row in study["rows"]:
        floats = [cause for side in FLOAT_SIDES for cause in row["findings"].get(side, {}).values()]
        assert KNOWN.issuperset(floats), row["network"]
        assert row["layers"] - row["int8_layers"] == len(floats), row["network"]


def test_nothing_is_wrong_but_results_that_are_read_as_float(study):
    assert {side for row in study["rows"] for side in row["findings"]} <= {*FLOAT_SIDES, "output"}


def test_the_table_is_made_of_the_rows(study):
    assert (FOLDER / "placement.md").read_text() == table(study)


def test_the_table_counts_causes_and_readers():
    assert readers_in('its result is read as float by Resize "/a b/Resize", Add "/Add"') == ["Add", "Resize"]
    assert counted(["a", "b", "a"]) == "2 a; 1 b"
    assert counted([]) == "none"
