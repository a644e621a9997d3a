"""The study of fine-tuning: its table is made of its figures, and the budget is met."""

import json
from pathlib import Path

from benchmarks.qat import page

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu-2core"


def test_the_page_is_made_of_the_figures():
    found = json.loads((RESULTS / "qat.json").read_text())
    assert (RESULTS / "qat.md").read_text() == page(found)
    assert [row["model"] for row in found["rows"]] == ["INT8, entropy", "INT8, fine-tuned"]
    assert {row["frames"] for row in found["rows"]} == {101}


def test_tuning_loses_less_than_a_tenth_of_a_point_with_everything_in_int8():
    plain, tuned = json.loads((RESULTS / "qat.json").read_text())["rows"]
    assert tuned["miou_drop"] <= 0.10
    assert tuned["pixel_agreement"] > plain["pixel_agreement"]
    assert tuned["mac_share"] == plain["mac_share"] == 1
