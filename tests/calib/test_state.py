import logging

import numpy as np
import pytest

from roadseg.calib import METHODS, calibrate, calibrate_each, files_by_method
from roadseg.calib.calibrate import SAVE_EVERY
from roadseg.calib.channel_order import FRAMES
from roadseg.calib.placement import place
from roadseg.calib.ranges import Collector
from roadseg.calib.state import load_state, save_state, state_key, state_path
from roadseg.runtime.onnxfile import load_onnx, onnx_spec

IMAGES = 40
"""Read twice: looked at all of them, then some to see their colours, and then run."""


class Killed(BaseException):
    """What no code of ours catches."""


class Mortal:
    """A data set that ends the run when its `last` image has been read."""

    def __init__(self, frames, last=None):
        self.frames = frames
        self.last = last
        self.name, self.split, self.label_set, self.keys = frames.name, frames.split, frames.label_set, frames.keys
        self.reads = 0

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if self.reads == self.last:
            raise Killed
        self.reads += 1
        return self.frames[index]


@pytest.fixture(scope="module")
def frames(scenes):
    return scenes(groups=(IMAGES,))


def die(model, frames, out, count=IMAGES, **settings):
    """Calibrate until 20 images have been run."""
    with pytest.raises(Killed):
        calibrate(model, Mortal(frames, (count < IMAGES) + count + FRAMES + 20), out=out, count=count, **settings)
    assert state_path(out).is_file()


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("after", "kept"), [(15, 0), (39, 32)])
def test_a_killed_run_goes_on_to_the_same_files_by_every_method(small, frames, tmp_path, after, kept):
    whole, cut = (files_by_method(tmp_path / name / "m.ranges", METHODS) for name in ("whole", "cut"))
    calibrate_each(small, frames, whole)
    with pytest.raises(Killed):
        calibrate_each(small, Mortal(frames, IMAGES + FRAMES + after), cut)
    again = Mortal(frames)
    calibrate_each(small, again, cut)
    assert again.reads == IMAGES + IMAGES + FRAMES - kept
    assert files_in(tmp_path / "cut") == files_in(tmp_path / "whole")


def test_the_state_of_other_settings_is_not_gone_on_with(small, frames, tmp_path):
    out = tmp_path / "m.ranges"
    expected = calibrate(small, frames, out=tmp_path / "expected.ranges", count=39)
    for other in ({"method": "minmax"}, {"count": 38}, {}):
        die(small, frames, out, **other)
        again = Mortal(frames)
        report = calibrate(small, again, out=out, count=39)
        assert again.reads == 1 + 39 + FRAMES + 39  # one tells that there are no labels
        assert report.sha256 == expected.sha256
        assert not state_path(out).exists()


def test_the_state_of_another_model_is_not_gone_on_with(small, frames, tmp_path):
    out = tmp_path / "m.ranges"
    die(small, frames, out)
    model = load_onnx(small)
    model.producer_name = "somebody else"
    small.write_bytes(model.SerializeToString())
    again = Mortal(frames)
    calibrate(small, again, out=out)
    assert again.reads == IMAGES + IMAGES + FRAMES


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-100], lambda data: data[:400] + b"x" + data[401:]]
)
def test_a_damaged_state_is_told_and_begun_anew(small, frames, tmp_path, damage, caplog):
    out = tmp_path / "m.ranges"
    die(small, frames, out)
    path = state_path(out)
    path.write_bytes(damage(path.read_bytes()))
    again = Mortal(frames)
    with caplog.at_level(logging.WARNING, "roadseg"):
        calibrate(small, again, out=out)
    assert again.reads == IMAGES + IMAGES + FRAMES
    assert "m.ranges.state is damaged; calibration begins anew" in caplog.text


def test_what_was_gathered_survives_the_file_to_the_last_bit(small, frames, tmp_path):
    model = load_onnx(small)
    spec = onnx_spec(model, small)
    before, after = (Collector(model, spec, place(model), METHODS) for _ in range(2))
    for frame in frames.frames[:3]:
        before.add(frame)
    key = state_key("model", "images", METHODS)
    save_state(tmp_path / "x.state", key, before, 3)
    assert load_state(tmp_path / "x.state", key, after) == 3
    for collector in (before, after):
        collector.add(frames.frames[3])
    for name, values in before.state().items():
        np.testing.assert_array_equal(after.state()[name], values, strict=True)
    assert [after.ranges(method) for method in METHODS] == [before.ranges(method) for method in METHODS]


def test_the_state_is_no_larger_after_many_images_than_after_one(small, frames, tmp_path):
    model = load_onnx(small)
    collector = Collector(model, onnx_spec(model, small), place(model), METHODS)
    sizes = []
    for images, frame in enumerate(frames.frames[:SAVE_EVERY], start=1):
        collector.add(frame)
        save_state(tmp_path / "x.state", "key", collector, images)
        sizes.append((tmp_path / "x.state").stat().st_size)
    assert len(set(sizes)) == 1
