import dataclasses

import numpy as np
import pytest

from roadseg.calib import METHODS, Layers, equalise, is_equalised, quantize, search, sources
from roadseg.calib.sources import make_sources, sources_folder
from roadseg.runtime import CalibrationError, ModelSpec, UsageError, read_manifest, sha256_file
from roadseg.runtime.settings import read_settings


@pytest.fixture
def uneven(graph, save, tmp_path):
    """Two convolutions. Of what the second reads, one map is 64 times larger, and has weights 64 times smaller."""
    model = graph(
        """g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            planes = Transpose<perm=[0,3,1,2]>(bytes)
            maps = Conv(planes, w1)
            logits = Conv(maps, w2)
            best = ArgMax<axis=1, keepdims=0>(logits)
            labels = Cast<to=2>(best)
        }""",
        w1=np.diag([64, 1, 1]).astype(np.float32)[:, :, None, None],
        w2=np.array([[1 / 64, -2, 1], [-1 / 64, 2, -1]], np.float32)[:, :, None, None],
    )
    return save(tmp_path / "uneven.onnx", model, ModelSpec("uneven", 8, 8, classes=("road", "sky")))


def test_a_model_without_ranges_is_calibrated_by_every_method_and_equalised(uneven, frames, tmp_path):
    out = tmp_path / "int8.onnx"
    report = search(uneven, None, frames, budget=3, out=out, repair=frames)
    drops = {point.ranges: point.drop for point in report.points}
    plain, equalised = ([drops[f"{name}_{m}.ranges"] for m in METHODS] for name in ("uneven", "uneven_equalised"))
    assert len(drops) == 2 * len(METHODS)
    assert min(plain) > 3 >= min(equalised) == report.chosen.drop
    assert not report.kept
    assert (report.model, report.ranges) == (tmp_path / "int8_equalised.onnx", tmp_path / "int8.ranges")
    assert sha256_file(report.model) == equalise(uneven, frames, out=tmp_path / "equalised.onnx").sha256
    # What was taken gives the same model again, and nothing else is left.
    kept = read_settings(report.layers, Layers).kept
    again = quantize(report.model, "int8", ranges=report.ranges, out=tmp_path / "again.onnx", kept=kept)
    assert again.sha256 == report.sha256
    assert not sources_folder(uneven, frames, out).exists()


def test_a_model_that_loses_no_less_equalised_is_taken_as_it_is(hopeless, frames, tmp_path):
    # It has one layer, so there is nothing to equalise, and both lose alike.
    report = search(hopeless, None, frames, budget=100, out=tmp_path / "int8.onnx", repair=frames)
    assert len(report.points) == 2 * len(METHODS)
    assert report.model == hopeless
    assert read_manifest(report.ranges, "ranges").inputs["onnx"] == sha256_file(hopeless)
    assert not (tmp_path / "int8_equalised.onnx").exists()


def test_what_is_there_is_not_made_again(small, scenes, tmp_path, monkeypatch):
    frames, folder = scenes(), tmp_path / "sources"
    made = make_sources(small, frames, folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert make_sources(small, frames, folder) == made
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    made[-1].ranges.unlink()
    made[-1].ranges.with_name(made[-1].ranges.name + ".json").unlink()
    assert make_sources(small, frames, folder) == made
    changed = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert {path.name for path in changed if path.suffix == ".ranges"} == {
        f"small_equalised_{method}.ranges" for method in METHODS
    }


def test_a_search_that_was_killed_does_not_calibrate_again(spoilt, frames, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    out = tmp_path / "int8.onnx"
    with monkeypatch.context() as patched:
        patched.setattr("roadseg.calib.trial.Trial.measure", die)
        with pytest.raises(KeyboardInterrupt):
            search(spoilt, None, frames, budget=2, out=out, repair=frames)
    assert sources_folder(spoilt, frames, out).is_dir()
    monkeypatch.setattr(sources, "calibrate_each", die)
    monkeypatch.setattr(sources, "equalise", die)
    assert search(spoilt, None, frames, budget=2, out=out, repair=frames).path == out


def test_other_frames_and_other_models_have_folders_of_their_own(spoilt, small, frames, scenes, tmp_path):
    out = tmp_path / "int8.onnx"
    folders = {
        sources_folder(model, dataset, out)
        for model in (spoilt, small)
        for dataset in (frames, scenes(), dataclasses.replace(frames, split="val"))
    }
    assert len(folders) == 6


def test_a_model_that_is_equalised_already_is_not_equalised_twice(spoilt, frames, tmp_path):
    equalise(spoilt, frames, out=tmp_path / "equal.onnx")
    made = make_sources(tmp_path / "equal.onnx", frames, tmp_path / "sources")
    assert {source.model for source in made} == {tmp_path / "equal.onnx"}
    assert len(made) == len(METHODS)
    assert all(is_equalised(source.model) for source in made)


def test_without_ranges_there_have_to_be_frames_to_make_them_on(small, scenes, tmp_path):
    with pytest.raises(UsageError, match="ranges or frames to make them on"):
        search(small, None, scenes(), budget=1, out=tmp_path / "int8.onnx")
    with pytest.raises(UsageError, match="ranges or frames to make them on"):
        search(small, [], scenes(), budget=1, out=tmp_path / "int8.onnx", repair=scenes())
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        search(small, None, scenes(), budget=1, out=tmp_path / "int8.onnx", repair=scenes(split="val"))
    assert not list(tmp_path.glob("int8*"))
