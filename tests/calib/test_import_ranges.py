import dataclasses
import struct

import pytest

from roadseg.calib import METHODS, ImportDetails, calibrate, import_ranges, quantize, read_ranges
from roadseg.calib.placement import place
from roadseg.runtime import ArtifactError, CalibrationError, manifest_path, read_manifest, sha256_file
from roadseg.runtime.onnxfile import load_onnx


@pytest.fixture
def drive(scenes):
    return scenes(16, 16, groups=(24,))


@pytest.fixture
def foreign(branches, drive, tmp_path):
    """A function that writes a cache as TensorRT would: its own version, entries of its own, no common scales."""

    def write(model=None, changes=(), without=(), method="entropy", dataset=drive):
        calibrate(model or branches(), dataset, out=tmp_path / "own.ranges", method=method, seed=3, count=16)
        amax = read_ranges(tmp_path / "own.ranges").amax
        amax |= {"left": amax["left"] * 0.9, "(Unnamed Layer* 3) [Convolution]_output": 3.0} | dict(changes)
        lines = [f"{n}: {struct.pack('>f', a / 127).hex()}" for n, a in amax.items() if n not in without]
        cache = tmp_path / "calib.cache"
        cache.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines, ""]))
        return cache

    return write


@pytest.mark.parametrize("method", METHODS)
def test_a_foreign_cache_becomes_ranges_that_quantize_takes(branches, drive, foreign, tmp_path, method):
    model, out = branches(), tmp_path / "m.ranges"
    cache = foreign(method=method)
    report = import_ranges(model, cache, drive, out=out)
    assert (report.tensors, report.ignored, report.widened, report.images) == (7, 1, ("left",), 24)
    ranges, theirs = read_ranges(out), read_ranges(cache)
    assert list(ranges.amax) == list(place(load_onnx(model)).activations)
    assert ranges.amax["left"] == theirs.amax["both"]
    assert all(ranges.scale(name) == theirs.scale(name) for name in ranges.amax if name != "left")
    assert quantize(model, "int8", ranges=out, out=tmp_path / "int8.onnx").typed_layers == 6


def test_the_manifest_tells_what_is_known_and_no_more(branches, drive, foreign, tmp_path):
    out, cache = tmp_path / "m.ranges", foreign()
    report = import_ranges(branches(), cache, drive, out=out, count=9)
    manifest = read_manifest(out, "ranges")
    details = manifest.details_as(ImportDetails)
    assert details.method == "imported"
    assert (details.calibrator, len(details.checked_on.images)) == ("EntropyCalibration2", 9)
    assert manifest.inputs == {
        "onnx": sha256_file(branches()),
        "cache": sha256_file(cache),
        "images": details.checked_on.sha256,
    }
    assert (report.sha256, report.cache_sha256) == (sha256_file(out), sha256_file(cache))


def test_the_same_cache_gives_the_same_bytes(branches, drive, foreign, tmp_path):
    cache = foreign()
    for name in ("a", "b"):
        import_ranges(branches(), cache, drive, out=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert manifest_path(tmp_path / "a").read_bytes() == manifest_path(tmp_path / "b").read_bytes()


def test_what_it_lacks_is_listed(branches, drive, foreign, tmp_path):
    with pytest.raises(CalibrationError, match=r'calib\.cache lacks 2 of the 7 tensors .*: "stem", "deep"\.'):
        import_ranges(branches(), foreign(without=("stem", "deep")), drive, out=tmp_path / "m.ranges")
    assert not (tmp_path / "m.ranges").exists()


@pytest.mark.parametrize("factor", [8, 1 / 8])
def test_a_tensor_that_was_scaled_wrongly_is_named(branches, drive, foreign, tmp_path, factor):
    right = read_ranges(foreign()).amax["deep"]
    with pytest.raises(CalibrationError, match=r'of 5 ranges 1 is off\. "deep" has the range'):
        import_ranges(branches(), foreign(changes={"deep": right * factor}), drive, out=tmp_path / "m.ranges")
    assert not (tmp_path / "m.ranges").exists()


def test_of_a_concatenation_the_one_that_is_too_wide_is_named(branches, drive, foreign, tmp_path):
    right = read_ranges(foreign()).amax["right"]
    with pytest.raises(CalibrationError, match=r'of 5 ranges 1 is off\. "right" has the range'):
        import_ranges(branches(), foreign(changes={"right": right * 8}), drive, out=tmp_path / "m.ranges")


def test_a_cache_of_other_weights_is_stale(branches, drive, foreign, tmp_path):
    cache = foreign(model=branches(1))
    with pytest.raises(CalibrationError, match=r"calib\.cache (is stale|does not fit 24 frames)"):
        import_ranges(branches(0), cache, drive, out=tmp_path / "m.ranges")
    assert import_ranges(branches(1), cache, drive, out=tmp_path / "m.ranges").tensors == 7


def test_ranges_that_are_all_a_little_off_are_stale_together(branches, drive, foreign, tmp_path):
    amax = read_ranges(foreign()).amax
    factors = (0.6, 1.7, 0.6, 0.6, 0.6, 1.7, 0.6)
    wider = {name: amax[name] * factor for name, factor in zip(amax, factors, strict=False)}
    with pytest.raises(
        CalibrationError,
        match=r"calib\.cache is stale: its tensors have the names of .*branches_0\.onnx, but not the ranges\. "
        r"On 24 frames of folder:.* by a factor of [\d.]+ together, 1\.23 is allowed; \"",
    ):
        import_ranges(branches(), foreign(changes=wider), drive, out=tmp_path / "m.ranges")


def test_a_cache_that_is_none_is_refused(branches, drive, tmp_path):
    (tmp_path / "calib.cache").write_text("images: 3c010a14\n")
    with pytest.raises(ArtifactError, match="it is not a calibration cache"):
        import_ranges(branches(), tmp_path / "calib.cache", drive, out=tmp_path / "m.ranges")


def test_frames_of_a_validation_split_are_not_used_unasked(branches, drive, foreign, tmp_path):
    val = dataclasses.replace(drive, split="val")
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        import_ranges(branches(), foreign(), val, out=tmp_path / "m.ranges")


def test_other_weights_leave_the_names_of_tensors(tmp_path):
    """Caches name tensors only, so a network that is trained and exported again must call them the same."""
    import torch
    from torch import nn

    from roadseg.export import export
    from roadseg.runtime import ModelSpec

    def names(seed):
        torch.manual_seed(seed)
        out = tmp_path / f"{seed}.onnx"
        block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        net = nn.Sequential(block, nn.Conv2d(4, 4, 3, padding=1), nn.ReLU6(), nn.Conv2d(4, 2, 1))
        export(net.eval(), ModelSpec("net", 16, 16, classes=("road", "sky")), out)
        return place(load_onnx(out)).activations, sha256_file(out)

    first, again = names(0), names(1)
    assert first[0] == again[0]
    assert len(first[0]) == 3
    assert first[1] != again[1]
