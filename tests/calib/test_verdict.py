import dataclasses
import math

import pytest

from roadseg.calib import GPUS, Candidate, calibrate, judge, quantize
from roadseg.calib.verdict import sentence, worst_class
from roadseg.runtime import Evaluation, ParityReport

ORIN = GPUS["orin_agx"]


def row(precision, drop, ms, share=0.0, ci95=(0.0, 0.0)):
    return Candidate(precision, 60 - drop, drop, ci95, "", 0, "one", 99, share, ms)


FP32, FP16 = row("FP32", 0, 2), row("FP16", 0.01, 1)


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        (
            row("mixed", 0.05, 0.8, 0.95, (-0.02, 0.12)),
            "Take the mixed model: 20 % faster than FP16 by estimate on Jetson AGX Orin 64GB, -0.05 points "
            "(95 %: -0.12 to +0.02) within a budget of 0.1.",
        ),
        (
            row("INT8", 0.05, 0.5, 1, (math.nan, math.nan)),
            "Take the INT8 model: 50 % faster than FP16 by estimate on Jetson AGX Orin 64GB, -0.05 points "
            "within a budget of 0.1.",
        ),
        (
            row("INT8", 0.09, 0.96, 1),
            "INT8 is not worth it on Jetson AGX Orin 64GB: 4 % faster than FP16 by estimate, -0.09 points; "
            "take FP16, which loses 0.01.",
        ),
        (
            row("INT8", -0.2, 1.3, 1),
            "INT8 is not worth it on Jetson AGX Orin 64GB: 30 % slower than FP16 by estimate, +0.20 points; "
            "take FP16, which loses 0.01.",
        ),
        (
            row("INT8", 0.9, 0.5, 1),
            "INT8 loses 0.90 points, more than the budget of 0.1, with 100.0 % of the operations in INT8: "
            "take FP16, which loses 0.01.",
        ),
    ],
)
def test_the_sentence_says_what_to_do_and_why(tried, expected):
    assert sentence([FP32, FP16, tried], ORIN, 0.1) == expected


def test_fp16_that_loses_too_much_is_no_way_out():
    assert sentence([FP32, row("FP16", 3, 1), row("INT8", 5, 0.5)], ORIN, 0.1).endswith(": stay with FP32.")


def parity(before, after):
    def evaluation(iou):
        return Evaluation("a backend", ("road", "sky", "bus"), 0.5, iou, 0.5, 1)

    return ParityReport(evaluation(before), evaluation(after), 1, 1, (0, 0), (1, 0, 0), (1, 0, 0), "one", 1)


def test_the_worst_class_is_the_one_that_falls_most():
    name, lost = worst_class(parity((0.9, 0.8, 0.5), (0.91, 0.7, 0.45)))
    assert name == "sky"
    assert lost == pytest.approx(10)


@pytest.mark.parametrize("after", [(0.91, 0.8, 0.5), (math.nan, math.nan, math.nan)])
def test_no_class_is_worst_where_none_falls(after):
    assert worst_class(parity((0.9, 0.8, math.nan), after)) == ("", 0.0)


def test_models_are_judged_on_the_same_frames(small, scenes, tmp_path):
    calibrate(small, scenes(), out=tmp_path / "ranges", method="minmax")
    quantize(small, "fp16", out=tmp_path / "fp16.onnx")
    quantize(small, "int8", out=tmp_path / "int8.onnx", ranges=tmp_path / "ranges")
    models = {"FP32": small, "FP16": tmp_path / "fp16.onnx", "INT8": tmp_path / "int8.onnx"}
    verdict = judge(models, list(scenes()), gpu=ORIN, budget=5)
    assert [row.precision for row in verdict.candidates] == list(models)
    assert [row.int8_mac_share for row in verdict.candidates] == [0, 0, 1]
    whole, half, _ = verdict.candidates
    assert (whole.drop, whole.miou, whole.worst_class) == (0, None, "")
    assert half.drop < 5
    assert verdict.frames == 5
    assert whole.furthest_agreement == 100


def test_the_frame_that_ranges_were_not_made_for_is_named(small, scenes, tmp_path):
    # Ranges of dark frames cut off what a bright one reaches.
    frames = scenes(groups=(5,))
    dark = dataclasses.replace(frames, frames=tuple(frame // 16 for frame in frames.frames))
    calibrate(small, dark, out=tmp_path / "ranges", method="minmax")
    quantize(small, "int8", out=tmp_path / "int8.onnx", ranges=tmp_path / "ranges")
    mixed = dataclasses.replace(dark, frames=(*dark.frames[:3], frames.frames[3], dark.frames[4]))
    models = {"FP32": small, "FP16": small, "INT8": tmp_path / "int8.onnx"}
    (*_, row) = judge(models, list(mixed), gpu=ORIN, budget=5).candidates
    assert row.furthest == mixed.keys[3].name
    assert row.furthest_agreement < 100
