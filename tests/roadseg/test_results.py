"""What of a pipeline's folder is shown."""

import dataclasses
import math

from roadseg.calib import Point
from roadseg.results import furthest, search
from roadseg.runtime import Key
from roadseg.steps import write_json


@dataclasses.dataclass(frozen=True)
class Named:
    """A data set of which only the names count."""

    keys: tuple[Key, ...] = tuple(Key(name, "") for name in ("dawn", "noon", "night"))


def verdict(frame, agreement):
    return {"furthest": {"frame": frame, "pixel_agreement": agreement}}


def test_the_frames_on_which_models_err_most_are_shown_with_a_remark():
    verdicts = {"fp32": verdict("dawn", 100.0), "fp16": verdict("noon", 99.4), "int8": verdict("night", 71.04)}
    assert furthest(Named(), verdicts) == {
        1: ", where FP16 agrees least: on 99.4 % of the pixels",
        2: ", where INT8 agrees least: on 71.0 % of the pixels",
    }


def test_of_two_models_that_err_on_the_same_frame_the_last_is_told():
    verdicts = {"fp16": verdict("night", 98.0), "int8": verdict("night", 71.04)}
    assert furthest(Named(), verdicts) == {2: ", where INT8 agrees least: on 71.0 % of the pixels"}


def test_verdicts_of_earlier_versions_name_no_frame():
    assert furthest(Named(), {"int8": {"miou_drop": 0.1}}) == {}


def test_a_search_without_labels_comes_back_from_its_file_without_intervals(tmp_path):
    measured = Point("m.ranges", 2, "biases", 0.9, 0.25, (math.nan, math.nan), 1.5)
    found = {"frames": 4, "budget": 0.5, "verdict": {"gpu": "T4"}, "parts": {"/stem/": 0.1}}
    write_json(tmp_path / "search.json", {**found, "points": [measured], "chosen": measured})
    back = search(tmp_path / "search.json")
    assert back.points == (back.chosen,)
    assert all(math.isnan(end) for end in back.chosen.ci95)
    assert dataclasses.replace(back.chosen, ci95=(0, 0)) == dataclasses.replace(measured, ci95=(0, 0))
    assert (back.frames, back.budget, back.gpu, back.parts) == (4, 0.5, "T4", {"/stem/": 0.1})
