import dataclasses

import numpy as np
import pytest

from roadseg.calib import GPUS, Layers, Ranges, calibrate, format_cache, quantize, read_ranges, search
from roadseg.calib.placement import ASKED, place
from roadseg.calib.search import Search, fewest
from roadseg.calib.trial import REPAIRS, Point, Trial, frontier
from roadseg.runtime import (
    CalibrationError,
    ModelSpec,
    ParityError,
    UsageError,
    read_manifest,
    write_with_manifest,
)
from roadseg.runtime.onnxfile import load_onnx
from roadseg.runtime.settings import read_settings


def point(ms, drop, kept=0, repaired="none"):
    return Point("m.ranges", kept, repaired, 1.0, drop, (drop, drop), ms)


@pytest.fixture
def shifted(graph, save, tmp_path):
    """Convolutions, of which one behind the first has weights that rounding makes smaller, all of them.

    Beside a large one of 127 steps, which meets a channel that is black, all are 10.4 steps and become 10: maps
    that hardly vary, and that the second compares with a constant, are 4 % too small.
    """
    weights = np.full((1, 3, 1, 1), 10.4 / 127, np.float32)
    weights[0, 0] = 1
    model = graph(
        """g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            planes = Transpose<perm=[0,3,1,2]>(bytes)
            faint = Mul(planes, light)
            lit = Add(faint, glow)
            copied = Conv(lit, w0)
            first = Conv(copied, w1)
            second = Conv(first, w2, b2)
            best = ArgMax<axis=1, keepdims=0>(second)
            labels = Cast<to=2>(best)
        }""",
        w0=np.eye(3, dtype=np.float32)[:, :, None, None],
        light=np.array([0, 0.1, 0.1], np.float32)[:, None, None],
        glow=np.array([0, 100, 100], np.float32)[:, None, None],
        w1=weights,
        w2=np.array([1, -1], np.float32)[:, None, None, None],
        b2=np.array([-18.4, 18.4], np.float32),
    )
    return save(tmp_path / "shifted.onnx", model, ModelSpec("shifted", 8, 8, classes=("road", "sky")))


@pytest.fixture
def ranges(spoilt, frames, tmp_path):
    calibrate(spoilt, frames, out=tmp_path / "spoilt.ranges", method="minmax")
    return tmp_path / "spoilt.ranges"


def float_layers(path):
    """Layers whose input comes from no DequantizeLinear."""
    model = load_onnx(path)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    return [
        n.output[0] for n in model.graph.node if n.op_type == "Conv" and made_by[n.input[0]] != "DequantizeLinear"
    ]


def test_the_layer_that_does_the_harm_goes_back_to_float_and_no_other(spoilt, ranges, frames, tmp_path):
    report = search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx")
    assert list(report.kept) == ["second"] == float_layers(report.path)
    assert report.points[0].drop > 10
    assert report.chosen.kept == 1
    assert report.chosen.drop <= 2
    assert 0 < report.chosen.int8_mac_share < 1
    assert list(report.parts) == ["first", "second", "third"]
    assert report.kept == {"second": report.parts["second"]}


def test_the_layers_file_gives_the_same_model_again(spoilt, ranges, frames, tmp_path):
    report = search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx")
    kept = read_settings(report.layers, Layers).kept
    again = quantize(spoilt, "int8", ranges=ranges, out=tmp_path / "again.onnx", kept=kept)
    assert again.sha256 == report.sha256
    assert ASKED in again.kept.values()


def test_a_budget_that_int8_keeps_by_itself_leaves_nothing_float(small, scenes, tmp_path):
    calibrate(small, scenes(), out=tmp_path / "ranges")
    report = search(small, tmp_path / "ranges", scenes(), budget=100, out=tmp_path / "int8.onnx")
    assert (report.kept, report.chosen.kept, len(report.points)) == ({}, 0, 1)


def test_an_interrupted_search_goes_on(spoilt, ranges, frames, tmp_path, monkeypatch):
    measure, calls = Trial.measure, []

    def interrupted(self, ranges, kept, repaired="none"):
        calls.append(kept)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, ranges, kept, repaired)

    monkeypatch.setattr(Trial, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()
    calls[:] = [None] * 3  # the third is behind us
    report = search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx")
    alone = [kept for kept in calls[3:] if len(kept) == 2]
    assert alone == [["first", "third"], ["first", "second"]]  # the first layer alone was known
    assert list(report.kept) == ["second"]


def test_what_was_measured_with_another_rest_does_not_count(spoilt, ranges, frames, tmp_path, monkeypatch):
    search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx")
    measure, calls = Trial.measure, []
    monkeypatch.setattr(
        Trial, "measure", lambda self, file, kept, *rest: calls.append(kept) or measure(self, file, kept, *rest)
    )
    report = search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx", rest="fp32")
    assert sum(len(kept) == 2 for kept in calls) == 3
    again = quantize(spoilt, "int8", ranges=ranges, out=tmp_path / "a.onnx", kept=report.kept, rest="fp32")
    assert again.sha256 == report.sha256


def test_what_was_measured_on_other_frames_does_not_count(spoilt, ranges, frames, scenes, tmp_path, monkeypatch):
    search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx")
    measure, calls = Trial.measure, []
    monkeypatch.setattr(
        Trial, "measure", lambda self, file, kept, *rest: calls.append(kept) or measure(self, file, kept, *rest)
    )
    search(
        spoilt, ranges, dataclasses.replace(frames, frames=frames.frames[1:]), budget=2, out=tmp_path / "int8.onnx"
    )
    assert sum(len(kept) == 2 for kept in calls) == 3


def test_a_budget_that_no_int8_model_keeps_is_told(hopeless, frames, tmp_path):
    calibrate(hopeless, frames, out=tmp_path / "ranges", method="minmax")
    with pytest.raises(
        CalibrationError, match=r"no INT8 model of .* loses at most 1 points .* even logits alone .* Equalise"
    ):
        search(hopeless, tmp_path / "ranges", frames, budget=1, out=tmp_path / "int8.onnx")
    with pytest.raises(CalibrationError, match=r"even logits alone loses [0-9.]+\. Use FP16\."):
        search(hopeless, None, frames, budget=1, out=tmp_path / "int8.onnx", repair=frames)
    assert not (tmp_path / "int8.onnx").exists()


def test_no_frames_are_refused(spoilt, ranges, frames, tmp_path):
    with pytest.raises(UsageError, match="a search needs frames"):
        search(spoilt, ranges, frames, budget=1, out=tmp_path / "int8.onnx", count=0)


def test_a_layer_that_is_none_is_refused_with_the_nearest(spoilt, ranges, tmp_path):
    with pytest.raises(CalibrationError, match=r"no layer 'secont' that could .* Did you mean 'second'"):
        quantize(spoilt, "int8", ranges=ranges, out=tmp_path / "int8.onnx", kept=["secont"])


def test_a_sum_is_quantised_only_where_the_layer_that_it_becomes_a_part_of_is(graph):
    model = graph(
        """g (float[1,3,4,4] x) => (float[1,3,4,4] y) {
            a = Conv(x, w) b = Conv(a, v) s = Add(a, b) y = Conv(s, u) }""",
        w=(3, 3, 1, 1),
        v=(3, 3, 1, 1),
        u=(3, 3, 1, 1),
    )
    assert place(model).activations == ("x", "a", "s")
    assert place(model, ["b"]).activations == ("x", "s")
    assert place(model, ["a"]).activations == ("a", "s")


@pytest.mark.parametrize("needed", range(6))
def test_the_fewest_that_are_enough_are_found_without_asking_about_all(needed):
    asked = []
    assert fewest(5, lambda number: asked.append(number) or number >= needed) == needed
    assert 5 not in asked
    assert len(asked) <= 3


def test_the_reference_is_asked_once_for_each_frame(spoilt, ranges, frames, monkeypatch):
    trial = Trial(spoilt, list(frames), GPUS["orin_agx"])
    trial.measure(ranges, ())
    monkeypatch.setattr(trial.reference.backend, "_backend", None)
    assert trial.measure(ranges, ["second"]).kept == 1


def test_of_several_ranges_those_that_lose_least_are_taken(small, scenes, tmp_path):
    calibrate(small, scenes(), out=tmp_path / "good.ranges", method="minmax")
    cut = read_ranges(tmp_path / "good.ranges")
    bad = Ranges({name: amax / 50 for name, amax in cut.amax.items()}, cut.calibrator)
    manifest = read_manifest(tmp_path / "good.ranges", "ranges")
    write_with_manifest(tmp_path / "bad.ranges", format_cache(bad), manifest)
    files = [tmp_path / "bad.ranges", tmp_path / "good.ranges"]
    report = search(small, files, scenes(), budget=10, out=tmp_path / "int8.onnx")
    assert report.ranges == files[1]
    assert [point.ranges for point in report.points] == ["bad.ranges", "good.ranges"]
    assert report.points[0].drop > report.points[1].drop


def test_biases_are_corrected_before_layers_go_back_to_float(shifted, frames, tmp_path):
    calibrate(shifted, frames, out=tmp_path / "ranges", method="minmax")
    without = search(shifted, tmp_path / "ranges", frames, budget=20, out=tmp_path / "float.onnx")
    assert without.kept
    report = search(shifted, tmp_path / "ranges", frames, budget=20, out=tmp_path / "int8.onnx", repair=frames)
    assert not report.kept
    assert [point.repaired for point in report.points] == ["none", "first weights", "biases"]
    assert report.chosen == report.points[2]
    assert report.chosen.drop <= 20 < report.points[1].drop
    corrected = {tensor.name for tensor in load_onnx(report.path).graph.initializer}
    assert any(name.endswith("/corrected_bias") for name in corrected)


class Losing:
    """A trial: every layer in INT8 loses so many points, all together fewer if the model is repaired."""

    def __init__(self, losses, gains=None):
        self.losses = losses
        self.repair = () if gains else None
        self.gains = {"none": 0} | (gains or {})

    def measure(self, ranges, kept, repaired="none"):
        lost = sum(loss for layer, loss in self.losses.items() if layer not in kept)
        return point(1, lost - self.gains[repaired], len(kept), repaired)

    def search(self, budget):
        """A search that has measured everything in INT8, and puts layers back to float in this order."""
        found = Search(self, None, budget, self.measure(None, ()))
        found.ranked = list(self.losses)
        return found


@pytest.mark.parametrize(
    ("gains", "repaired"),
    [
        ((-1, -1), [(0, "first weights"), (0, "biases")]),
        ((0.5, 0.2), [(0, "first weights"), (0, "biases"), (1, "first weights"), (2, "first weights")]),
        ((0.2, 0.5), [(0, "first weights"), (0, "biases"), (1, "biases"), (2, "biases")]),
    ],
)
def test_behind_the_first_time_a_model_is_repaired_only_as_helped_most_then(gains, repaired):
    losing = Losing(dict.fromkeys("abc", 1), dict(zip(REPAIRS[1:], gains, strict=True)))
    found = losing.search(budget=0.1)
    assert [found.enough(count) for count in range(4)] == [False, False, False, True]
    assert [(p.kept, p.repaired) for p in found.tried if p.repaired != "none"] == repaired
    tried = len(found.tried)
    assert not found.enough(0)
    assert len(found.tried) == tried


def test_layers_that_a_later_one_makes_needless_return_to_int8():
    losing = Losing({"a": 0.25, "b": 0.125, "c": 0.0625, "large": 2.0, "e": 0.0})
    found = losing.search(budget=0.3)
    count = fewest(5, found.enough)
    assert found.ranked[:count] == ["a", "b", "c", "large"]
    kept, chosen = found.trim(count)
    assert kept == ["a", "large"]
    assert (chosen.kept, chosen.drop) == (2, 0.1875)
    assert chosen in found.tried


def test_where_one_layer_is_enough_there_is_nothing_to_trim():
    found = Losing({"a": 1, "b": 0}).search(budget=0.3)
    assert fewest(2, found.enough) == 1
    tried = len(found.tried)
    assert found.trim(1) == (["a"], found.points[1])
    assert len(found.tried) == tried


def test_the_first_layers_weights_are_rounded_anew_before_biases_are_corrected(graph, save, frames, tmp_path):
    # Of what the first layer adds up 10.4 steps become 10 wherever they stand, so that maps are 4 % too small;
    # rounded anew, some become 11.
    weights = np.full((1, 3, 3, 3), 10.4 / 127, np.float32)
    weights[0, 0] = 0
    weights[0, 0, 1, 1] = 1
    model = graph(
        """g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            planes = Transpose<perm=[0,3,1,2]>(bytes)
            faint = Mul(planes, light)
            lit = Add(faint, glow)
            first = Conv(lit, w1)
            wide = Pad<mode="edge">(first, pads)
            second = Conv(wide, w2, b2)
            best = ArgMax<axis=1, keepdims=0>(second)
            labels = Cast<to=2>(best)
        }""",
        light=np.array([0, 0.1, 0.1], np.float32)[:, None, None],
        glow=np.array([0, 100, 100], np.float32)[:, None, None],
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        w1=weights,
        w2=np.array([1, -1], np.float32)[:, None, None, None],
        b2=np.array([-166, 166], np.float32),
    )
    path = save(tmp_path / "m.onnx", model, ModelSpec("first", 8, 8, classes=("road", "sky")))
    calibrate(path, frames, out=tmp_path / "ranges", method="minmax")
    report = search(path, tmp_path / "ranges", frames, budget=20, out=tmp_path / "int8.onnx", repair=frames)
    assert not report.kept
    assert [point.repaired for point in report.points] == ["none", "first weights"]
    assert report.chosen.drop <= 20 < report.points[0].drop


def test_a_verdict_on_other_frames_can_refuse_what_the_search_found(spoilt, ranges, frames, scenes, tmp_path):
    judged = scenes(groups=(3,), split="val")
    report = search(spoilt, ranges, frames, budget=2, out=tmp_path / "int8.onnx", judged=judged)
    assert report.verdict.frames == 3
    report.raise_for_budget()
    lost = dataclasses.replace(report.verdict.candidates[-1], drop=2.5)
    verdict = dataclasses.replace(report.verdict, candidates=(*report.verdict.candidates[:-1], lost))
    with pytest.raises(ParityError, match=r"2\.50 on those of the verdict; the budget is 2\. Choose on more"):
        dataclasses.replace(report, verdict=verdict).raise_for_budget()


def test_the_frontier_has_what_nothing_beats_from_the_fastest_on():
    points = [
        point(3, 0.1),
        point(1, 0.9),
        point(2, 0.5),
        point(2, 0.4),
        point(2.5, 0.4),
        point(1, 2.0),
        point(4, 0.2),
    ]
    assert [(p.estimated_ms, p.drop) for p in frontier(points)] == [(1, 0.9), (2, 0.4), (3, 0.1)]
    assert frontier([]) == []
