import dataclasses
import weakref

import numpy as np
import pytest

from roadseg.calib import METHODS, RangesDetails, calibrate, calibrate_each, files_by_method, read_ranges
from roadseg.calib.calibrate import portable_name
from roadseg.runtime import ArtifactError, CalibrationError, DataError, manifest_path, read_manifest, sha256_file
from roadseg.runtime.onnxfile import PRECISION_KEY, load_onnx, onnx_spec, save_onnx, set_metadata


class Unreadable:
    """A data set of which one image is broken; it remembers which frames are still alive."""

    def __init__(self, frames, broken):
        self.frames = frames
        self.broken = broken
        self.name, self.split, self.label_set, self.keys = frames.name, frames.split, frames.label_set, frames.keys
        self.given = []
        self.alive = []

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError(f"{self.keys[index].name}.png is not an image that can be read.")
        sample = dataclasses.replace(self.frames[index], frame=self.frames[index].frame.copy())
        self.alive.append(sum(reference() is not None for reference in self.given))
        self.given.append(weakref.ref(sample.frame))
        return sample


def test_the_manifest_says_what_the_ranges_were_made_from(small, scenes, tmp_path):
    out = tmp_path / "small.ranges"
    dataset = scenes(groups=(3, 2))
    report = calibrate(small, dataset, out=out, count=4, method="minmax", seed=7)
    manifest = read_manifest(out, "ranges")
    details = manifest.details_as(RangesDetails)
    assert manifest.inputs == {"onnx": sha256_file(small), "images": details.images.sha256}
    assert manifest.spec == onnx_spec(load_onnx(small), small)
    assert details.method == "minmax"
    assert (details.images.dataset, details.images.split, details.images.seed) == ("folder:drive", "train", 7)
    assert [image.group for image in details.images.images].count("0") == 2
    assert len({image.sha256 for image in details.images.images}) == 4
    assert (report.images, report.tensors) == (4, len(read_ranges(out).amax))
    assert report.sha256 == sha256_file(out)
    assert details.coverage == report.coverage


def test_a_list_with_many_copies_is_refused_before_the_model_runs(small, scenes, tmp_path):
    frames = scenes(groups=(8, 2))
    copied = Unreadable(dataclasses.replace(frames, frames=(*frames.frames[:8], *frames.frames[:2])), broken=None)
    with pytest.raises(
        CalibrationError, match=r"2 of 10 calibration images are copies .*1/1_0 is 0/0_0, 1/1_1 is 0"
    ):
        calibrate(small, copied, out=tmp_path / "x.ranges")
    assert len(copied.given) == 10
    assert not (tmp_path / "x.ranges").exists()


def test_the_same_inputs_give_the_same_bytes(small, scenes, tmp_path):
    paths = [tmp_path / name for name in ("a.ranges", "b.ranges")]
    for path in paths:
        calibrate(small, scenes(), out=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert manifest_path(paths[0]).read_bytes() == manifest_path(paths[1]).read_bytes()


def test_the_list_s_hash_follows_the_pixels(small, scenes, tmp_path):
    dataset = scenes()
    changed = dataclasses.replace(dataset, frames=(dataset.frames[0] ^ 1, *dataset.frames[1:]))
    first = calibrate(small, dataset, out=tmp_path / "a.ranges")
    assert first.images_sha256 != calibrate(small, changed, out=tmp_path / "b.ranges").images_sha256


def test_an_unreadable_image_is_named_and_leaves_the_old_file_as_it_was(small, scenes, tmp_path):
    out = tmp_path / "small.ranges"
    calibrate(small, scenes(), out=out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=r"1_1\.png is not an image"):
        calibrate(small, Unreadable(scenes(), broken=4), out=out, seed=1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_frames_are_let_go_while_others_come(small, scenes, tmp_path):
    dataset = Unreadable(scenes(groups=(9,)), broken=None)
    calibrate(small, dataset, out=tmp_path / "small.ranges")
    assert len(dataset.given) == 9 + 8 + 9  # to look at, to try both orders of channels on, to calibrate on
    assert max(dataset.alive) <= 1


def test_frames_of_another_size_are_resized_by_the_spec(small, scenes, tmp_path):
    assert calibrate(small, scenes(16, 24), out=tmp_path / "small.ranges").images == 5


def test_a_validation_split_is_refused_before_anything_is_read(small, scenes, tmp_path):
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        calibrate(small, Unreadable(scenes(split="val"), broken=0), out=tmp_path / "x.ranges")
    assert calibrate(small, scenes(split="val"), out=tmp_path / "x.ranges", force=True).images == 5


def test_a_typed_model_is_not_calibrated(small, scenes, tmp_path):
    model = load_onnx(small)
    set_metadata(model, {PRECISION_KEY: "fp16"})
    save_onnx(small, model)
    with pytest.raises(CalibrationError, match="is FP16 already"):
        calibrate(small, scenes(), out=tmp_path / "x.ranges")


def test_a_truncated_model_is_refused(small, scenes, tmp_path):
    small.write_bytes(small.read_bytes()[:-20])
    with pytest.raises(ArtifactError):
        calibrate(small, scenes(), out=tmp_path / "x.ranges")


def test_a_data_set_s_name_loses_its_folders():
    assert portable_name("camvid:../shared/data/camvid") == "camvid:camvid"
    assert portable_name("scenes:") == "scenes:"


def test_several_methods_from_one_pass_write_what_each_would_alone(small, scenes, tmp_path):
    dataset = Unreadable(scenes(groups=(6,)), broken=None)
    outs = files_by_method(tmp_path / "small.ranges", METHODS)
    reports = calibrate_each(small, dataset, outs)
    assert len(dataset.given) == 2 * 6  # once to look at, once to calibrate on
    for method, report in reports.items():
        assert report.path.name == f"small_{method}.ranges"
        assert read_manifest(report.path, "ranges").details_as(RangesDetails).method == method
        assert report == calibrate(small, scenes(groups=(6,)), out=report.path, method=method)


def test_every_method_sees_the_same_frames(small, scenes, tmp_path):
    reports = [calibrate(small, scenes(), out=tmp_path / m, method=m) for m in METHODS]
    assert len({report.images_sha256 for report in reports}) == 1
    minmax = read_ranges(tmp_path / "minmax").amax
    for method in METHODS:
        amax = read_ranges(tmp_path / method).amax
        assert amax.keys() == minmax.keys()
        assert all(np.float32(amax[name]) <= np.float32(minmax[name] * 1.001) for name in minmax)
