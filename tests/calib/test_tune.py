import dataclasses
import json
import logging

import numpy as np
import onnxruntime
import pytest
from onnx import ValueInfoProto, numpy_helper

torch = pytest.importorskip("torch")

from roadseg.calib import TunedDetails, Tuning, calibrate, finetune, quantize  # noqa: E402
from roadseg.calib.fakequant import Int8Rounding  # noqa: E402
from roadseg.calib.placement import place  # noqa: E402
from roadseg.calib.quantize import ranges_of  # noqa: E402
from roadseg.calib.ranges import feed  # noqa: E402
from roadseg.calib.source import load_float_model  # noqa: E402
from roadseg.calib.state import state_path  # noqa: E402
from roadseg.calib.teacher import Teacher, Views  # noqa: E402
from roadseg.calib.torchgraph import TorchGraph, logits_of  # noqa: E402
from roadseg.calib.tune import Tuner, cross_entropy, divergence  # noqa: E402
from roadseg.runtime import (  # noqa: E402
    CAMVID,
    CalibrationError,
    DataError,
    LabelSet,
    UsageError,
    read_manifest,
    sha256_file,
)
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, load_onnx, metadata, onnx_spec  # noqa: E402


@pytest.fixture
def ranges(mobile, scenes, tmp_path):
    calibrate(mobile, scenes(16, 16), out=tmp_path / "mobile.ranges", method="minmax")
    return tmp_path / "mobile.ranges"


def rounded_logits(model, ranges, frames):
    """Logits of a model with rounded tensors in PyTorch, `(N, classes, h, w)`."""
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    rounding = Int8Rounding(place(network), ranges_of(ranges, model, sha256_file(model)))
    net = TorchGraph(network, [logits_of(network)])
    with torch.no_grad():
        return torch.cat([net(torch.from_numpy(feed(frame, spec, 1)), rounding)[0] for frame in frames])


def exact_logits(model, frames):
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    net = TorchGraph(network, [logits_of(network)])
    with torch.no_grad():
        return torch.cat([net(torch.from_numpy(feed(frame, spec, 1)))[0] for frame in frames])


def onnx_logits(model, name, frames, spec):
    """The same of an ONNX model, in ONNX Runtime."""
    network = load_onnx(model)
    if all(output.name != name for output in network.graph.output):
        network.graph.output.append(ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = network.graph.input[0].name
    return np.concatenate([session.run([name], {fed: feed(frame, spec, 1)})[0] for frame in frames])


def test_int8_comes_nearer_to_the_float_model_on_frames_that_it_was_not_tuned_on(mobile, ranges, scenes, tmp_path):
    frames = scenes(16, 16, groups=(14,)).frames
    seen, unseen = scenes(16, 16, groups=(8,)), frames[8:]
    wanted = exact_logits(mobile, unseen)
    before = divergence(wanted, rounded_logits(mobile, ranges, unseen)).item()
    report = finetune(mobile, ranges, seen, out=tmp_path / "out.onnx", epochs=10, batch=2, rate=2e-2)
    after = divergence(wanted, rounded_logits(report.path, report.ranges, unseen)).item()
    assert after < before / 2
    assert report.losses[-1] < report.losses[0]
    assert (report.images, report.layers, report.steps, len(report.losses)) == (8, 5, 40, 10)


@pytest.mark.parametrize(("net", "size"), [("small", (8, 8)), ("mobile", (16, 16)), ("fastscnn", (96, 128))])
def test_onnx_runtime_answers_in_int8_as_the_rounded_module_does(net, size, request, scenes, tmp_path):
    model, dataset = request.getfixturevalue(net), scenes(*size)
    calibrate(model, dataset, out=tmp_path / "m.ranges")
    report = finetune(model, tmp_path / "m.ranges", dataset, out=tmp_path / "out.onnx", epochs=1)
    quantize(report.path, "int8", ranges=report.ranges, out=tmp_path / "int8.onnx")
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    expected = onnx_logits(tmp_path / "int8.onnx", logits_of(network), dataset.frames, spec)
    found = rounded_logits(report.path, report.ranges, dataset.frames).numpy()
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.999
    # One tensor in a thousand may be rounded to the other side where it lies between two values.
    assert np.quantile(np.abs(found - expected), 0.99) <= 0.01 * np.abs(expected).max()


def test_it_is_the_same_graph_with_other_weights_and_tells_what_it_was(mobile, ranges, scenes, tmp_path):
    report = finetune(mobile, ranges, scenes(16, 16), out=tmp_path / "out.onnx")
    before, after = load_float_model(mobile), load_onnx(report.path)
    assert [n.SerializeToString() for n in after.graph.node] == [n.SerializeToString() for n in before.graph.node]
    names = [[t.name for t in model.graph.initializer] for model in (before, after)]
    assert names[0] == names[1]
    pairs = zip(before.graph.initializer, after.graph.initializer, strict=True)
    changed = {a.name for b, a in pairs if not np.array_equal(*map(numpy_helper.to_array, (b, a)))}
    assert changed == {*(f"w{i}" for i in range(5)), *(f"b{i}" for i in range(4))}
    sources = {"float_onnx": sha256_file(mobile), "float_ranges": sha256_file(ranges)}
    entries = metadata(after)
    assert entries[PRECISION_KEY] == "fp32"
    assert json.loads(entries[PROVENANCE_KEY]) == sources | {
        "checkpoint": "c0ffee",
        "tuning_images": report.images_sha256,
    }
    manifest = read_manifest(report.ranges, "ranges")
    assert manifest.inputs == sources | {"onnx": report.sha256, "images": report.images_sha256}
    details = manifest.details_as(TunedDetails)
    assert (details.method, details.tuning) == ("learned", Tuning(epochs=4, batch=4, rate=3e-3, seed=0))
    assert details.images.dataset == "folder:drive"
    assert report.ranges_sha256 == sha256_file(report.ranges)


def test_the_same_inputs_give_the_same_bytes_and_another_seed_others(mobile, ranges, scenes, tmp_path):
    first, again, other = (
        finetune(mobile, ranges, scenes(16, 16), out=tmp_path / f"{i}.onnx", seed=seed)
        for i, seed in enumerate((0, 0, 1))
    )
    assert (first.sha256, first.ranges_sha256) == (again.sha256, again.ranges_sha256)
    assert first.sha256 != other.sha256


class Killed(BaseException):
    """What no code of ours catches."""


class Mortal:
    """A data set that ends the run when its `last` image has been read."""

    def __init__(self, frames, last=None):
        self.frames, self.last, self.reads = frames, last, 0
        self.name, self.split, self.label_set, self.keys = frames.name, frames.split, frames.label_set, frames.keys

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if self.reads == self.last:
            raise Killed
        self.reads += 1
        return self.frames[index]


def die(model, ranges, frames, out, **settings):
    """Tune five images until the second epoch's third has been read."""
    with pytest.raises(Killed):
        finetune(model, ranges, Mortal(frames, 5 + 5 + 3), out=out, **settings)
    assert state_path(out).is_file()
    assert not out.exists()


def test_a_killed_run_goes_on_to_the_same_files(mobile, ranges, scenes, tmp_path):
    frames, out = scenes(16, 16), tmp_path / "cut.onnx"
    whole = finetune(mobile, ranges, frames, out=tmp_path / "whole.onnx", epochs=3)
    die(mobile, ranges, frames, out, epochs=3)
    again = Mortal(frames)
    report = finetune(mobile, ranges, again, out=out, epochs=3)
    assert again.reads == 5 + 2 * 5
    assert (report.sha256, report.ranges_sha256) == (whole.sha256, whole.ranges_sha256)
    assert report.losses == whole.losses
    assert not state_path(out).exists()


def test_a_state_that_is_damaged_or_of_other_settings_is_not_gone_on_with(
    mobile, ranges, scenes, tmp_path, caplog
):
    frames, out = scenes(16, 16), tmp_path / "out.onnx"
    expected = finetune(mobile, ranges, frames, out=tmp_path / "expected.onnx")
    die(mobile, ranges, frames, out, rate=2e-3)
    again = Mortal(frames)
    assert finetune(mobile, ranges, again, out=out).sha256 == expected.sha256
    assert again.reads == 5 + 4 * 5
    state_path(out).write_bytes(b"PK\x03\x04 cut short")
    with caplog.at_level(logging.WARNING, "roadseg"):
        assert finetune(mobile, ranges, frames, out=out).sha256 == expected.sha256
    assert "out.onnx.state is damaged; fine-tuning begins anew" in caplog.text


def test_frames_to_measure_on_are_refused(mobile, ranges, scenes, tmp_path):
    out = tmp_path / "out.onnx"
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        finetune(mobile, ranges, scenes(16, 16, split="val"), out=out)
    finetune(mobile, ranges, scenes(16, 16, split="val"), out=out, epochs=1, force=True)


def test_what_does_not_belong_together_or_makes_no_sense_is_refused(mobile, small, ranges, scenes, tmp_path):
    frames, out = scenes(16, 16), tmp_path / "out.onnx"
    with pytest.raises(CalibrationError, match=r"holds the ranges of another model .*small\.onnx"):
        finetune(small, ranges, frames, out=out)
    for settings in ({"epochs": 0}, {"batch": 0}, {"rate": 0.0}, {"rate": float("nan")}, {"seed": -1}):
        with pytest.raises(UsageError, match="at least one epoch, one image a step, a rate between 0 and 1"):
            finetune(mobile, ranges, frames, out=out, **settings)
    for path in (mobile, ranges.with_suffix(".onnx")):
        with pytest.raises(UsageError, match="is read, and would be replaced by what is written"):
            finetune(mobile, ranges, frames, out=path)
    with pytest.raises(UsageError, match=r"out\.ranges is for the model, and its ranges would replace it"):
        finetune(mobile, ranges, frames, out=out.with_suffix(".ranges"))
    assert not out.exists()


def test_weights_that_run_away_are_told(mobile, ranges, scenes, tmp_path):
    out = tmp_path / "out.onnx"
    network = load_float_model(mobile)
    spec = onnx_spec(network, mobile)
    rounding = Int8Rounding(place(network), ranges_of(ranges, mobile, sha256_file(mobile)))
    tuner = Tuner(network, spec, rounding, Tuning(1, 1, 1e-3, 0), 1)
    with torch.no_grad():
        tuner.student.weights["b3"].fill_(float("nan"))
    with pytest.raises(
        CalibrationError, match=r"the logits of 0_0 became infinite or NaN; take a lower rate than"
    ):
        tuner.run(scenes(16, 16), (0,), state_path(out), "key")
    assert not state_path(out).exists()


ROAD_SKY = LabelSet("two", ("road", "sky"), ((0, 0, 0), (255, 255, 255)))


def by_brightness(frames):
    """The same frames, labelled by how bright their pixels are; a column on the left is unlabelled."""
    labels = [(frame.mean(axis=-1) > 127).astype(np.uint8) for frame in frames.frames]
    for label in labels:
        label[:, 0] = 255
    return dataclasses.replace(frames, label_set=ROAD_SKY, labels=tuple(labels))


def test_with_labels_the_int8_model_learns_what_the_float_model_did_not_know(mobile, ranges, scenes, tmp_path):
    seen, unseen = by_brightness(scenes(16, 16, groups=(8,))), by_brightness(scenes(16, 16, groups=(14,)))
    settings = {"epochs": 20, "batch": 2, "rate": 5e-2}

    def right(answers):
        wanted = np.stack(unseen.labels[8:])
        return (answers.argmax(1).numpy() == wanted)[wanted != 255].mean()

    taught = finetune(mobile, ranges, seen, out=tmp_path / "taught.onnx", label_weight=10, **settings)
    drawn = finetune(mobile, ranges, seen, out=tmp_path / "drawn.onnx", **settings)
    before, after, without = (
        right(exact_logits(mobile, unseen.frames[8:])),
        right(rounded_logits(taught.path, taught.ranges, unseen.frames[8:])),
        right(rounded_logits(drawn.path, drawn.ranges, unseen.frames[8:])),
    )
    assert after >= 0.9
    assert max(before, without) <= 0.7
    assert taught.losses[-1] < taught.losses[0]
    assert read_manifest(taught.ranges, "ranges").details_as(TunedDetails).tuning.label_weight == 10


def test_with_several_views_it_is_their_mean_that_is_learned(mobile, ranges, scenes, tmp_path):
    seen, unseen = scenes(16, 16, groups=(8,)), scenes(16, 16, groups=(14,)).frames[8:]
    network = load_float_model(mobile)
    teacher = Teacher(
        TorchGraph(network, [logits_of(network)]), onnx_spec(network, mobile), 1, Views((1.0, 2.0), flip=True)
    )
    wanted = torch.cat([teacher.answer(i, frame, mirrored=False) for i, frame in enumerate(unseen)])

    def far(**views):
        settings = {"out": tmp_path / "out.onnx", "epochs": 20, "batch": 2, "rate": 2e-2}
        report = finetune(mobile, ranges, seen, **settings, **views)
        return divergence(wanted, rounded_logits(report.path, report.ranges, unseen)).item()

    assert far(scales=(1, 2), flip=True) < far() / 2
    details = read_manifest(tmp_path / "out.ranges", "ranges").details_as(TunedDetails)
    assert details.tuning.views == Views()
    with pytest.raises(UsageError, match="scales are numbers from 1"):
        finetune(mobile, ranges, seen, out=tmp_path / "no.onnx", scales=(0.5,))


def test_the_cross_entropy_is_the_mean_over_labelled_pixels_of_enlarged_logits():
    logits = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])  # one row of two pixels, two classes
    labels = np.array([[0, 1, 255, 255]], np.uint8)
    # Half-pixel centres: the first pixel of four reads the first logit alone, the second a quarter of the other.
    expected = (np.log(2) + np.log(1 + np.exp(0.5))) / 2
    assert cross_entropy(logits, labels, align_corners=False).item() == pytest.approx(expected, rel=1e-6)
    # Corners aligned, the second is a third of the way.
    expected = (np.log(2) + np.log(1 + np.exp(2 / 3))) / 2
    assert cross_entropy(logits, labels, align_corners=True).item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(logits, np.full((1, 4), 255, np.uint8), align_corners=False).item() == 0


def test_labels_are_mirrored_with_their_frame(mobile, ranges, scenes):
    network = load_float_model(mobile)
    spec, frames = onnx_spec(network, mobile), by_brightness(scenes(16, 16))
    flipped = dataclasses.replace(
        frames,
        frames=tuple(frame[:, ::-1] for frame in frames.frames),
        labels=tuple(labels[:, ::-1] for labels in frames.labels),
    )
    rounding = Int8Rounding(place(network), ranges_of(ranges, mobile, sha256_file(mobile)))
    tuner = Tuner(network, spec, rounding, Tuning(1, 1, 1e-3, 0, label_weight=1), 1)
    assert tuner.add_gradient(frames, 0, True, 1) == tuner.add_gradient(flipped, 0, False, 1)
    assert tuner.add_gradient(frames, 0, True, 1) != tuner.add_gradient(frames, 0, False, 1)


def test_labels_that_cannot_count_are_refused(mobile, ranges, scenes, tmp_path):
    labelled, out = by_brightness(scenes(16, 16)), tmp_path / "out.onnx"
    others = dataclasses.replace(labelled, label_set=CAMVID)
    unlabelled = dataclasses.replace(labelled, labels=())
    small = dataclasses.replace(labelled, labels=tuple(labels[::2] for labels in labelled.labels))
    strange = dataclasses.replace(labelled, labels=tuple(labels | 2 for labels in labelled.labels))
    for frames, said in (
        (
            others,
            r"labels of 11 classes \(sky, building, pole, \.\.\.\), mobile answers with 2 classes \(road, sky",
        ),
        (unlabelled, r"[0-9]_[0-9] has no labels for a frame of \(16, 16\), and they are to count"),
        (small, r"has labels of \(8, 16\) for a frame of \(16, 16\)"),
        (strange, r"has the label 3, which is none of the model's 2 classes"),
    ):
        with pytest.raises(DataError, match=said):
            finetune(mobile, ranges, frames, out=out, label_weight=1)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="a weight of 0 or more"):
            finetune(mobile, ranges, labelled, out=out, label_weight=weight)
    assert not out.exists()
