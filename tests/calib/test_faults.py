"""Faults, each put into what works: it is stopped by the name of its culprit, and the twin without it passes."""

import dataclasses
import struct

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from roadseg.calib import calibrate, check_ranges, import_ranges, quantize, read_ranges
from roadseg.calib.cache import Ranges, format_cache
from roadseg.runtime import CalibrationError, ModelSpec, read_manifest, sha256_file, write_with_manifest


@pytest.fixture
def drive(scenes):
    """Frames of which red is bright and blue is dark."""
    frames = scenes(16, 16, groups=(10, 10))
    tinted = tuple((f // 2 + np.array([120, 60, 0])).astype(np.uint8) for f in frames.frames)
    return dataclasses.replace(frames, frames=tinted)


def cached(ranges, out, without=()):
    """The ranges as another program would have written them: a cache without a manifest."""
    lines = [f"{name}: {struct.pack('>f', amax / 127).hex()}" for name, amax in read_ranges(ranges).amax.items()]
    out.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines, ""]))
    return out


def test_a_tensor_scaled_wrongly(branches, drive, tmp_path):
    model, ranges = branches(), tmp_path / "m.ranges"
    calibrate(model, drive, out=ranges)
    check_ranges(model, ranges, drive)
    found = read_ranges(ranges)
    wrong = Ranges(found.amax | {"stem": found.amax["stem"] * 8}, found.calibrator)
    write_with_manifest(ranges, format_cache(wrong), read_manifest(ranges, "ranges"))
    with pytest.raises(CalibrationError, match=r'm\.ranges does not fit .* "stem" has the range'):
        check_ranges(model, ranges, drive)
    with pytest.raises(CalibrationError, match=r'calib\.cache does not fit .* "stem" has the range'):
        import_ranges(model, cached(ranges, tmp_path / "calib.cache"), drive, out=tmp_path / "imported.ranges")


def test_red_and_blue_swapped(graph, save, drive, tmp_path):
    text = """g (uint8[1,16,16,3] frames) => (uint8[1,16,16] labels) {
        bytes = Cast<to=1>(frames)
        images = Transpose<perm=[0,3,1,2]>(bytes)
        pixels = Mul(images, unit)
        redness = Conv(pixels, w1)
        active = Relu(redness)
        logits = Conv(active, w2)
        best = ArgMax<axis=1, keepdims=0>(logits)
        labels = Cast<to=2>(best)
    }"""
    red = np.array([1, 0, -1], np.float32).reshape(1, 3, 1, 1)
    sure = np.array([5, 0], np.float32).reshape(2, 1, 1, 1)
    model = graph(text, unit=np.array(1 / 255, np.float32), w1=red, w2=sure)
    path = save(tmp_path / "red.onnx", model, ModelSpec("red", 16, 16, classes=("red", "other")))
    calibrate(path, drive, out=tmp_path / "m.ranges")
    bgr = dataclasses.replace(drive, frames=tuple(np.ascontiguousarray(f[..., ::-1]) for f in drive.frames))
    with pytest.raises(CalibrationError, match=r"the frames of folder:/somewhere.*/drive look BGR"):
        calibrate(path, bgr, out=tmp_path / "m.ranges")


def test_a_network_trained_again(branches, drive, tmp_path):
    before, after, ranges = branches(0), branches(1), tmp_path / "m.ranges"
    calibrate(before, drive, out=ranges)
    quantize(before, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    hashes = rf"\(SHA-256 {sha256_file(before)[:12]}\) than .*branches_1\.onnx \({sha256_file(after)[:12]}\)"
    with pytest.raises(
        CalibrationError, match=rf"m\.ranges holds the ranges of another model {hashes}\. Calibrate"
    ):
        quantize(after, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    cache = cached(ranges, tmp_path / "calib.cache")
    import_ranges(before, cache, drive, out=tmp_path / "imported.ranges")
    with pytest.raises(CalibrationError, match=r"calib\.cache (is stale|does not fit 20 frames)"):
        import_ranges(after, cache, drive, out=tmp_path / "stale.ranges")
    with pytest.raises(CalibrationError, match=rf"imported\.ranges holds the ranges of another model {hashes}"):
        quantize(after, "int8", ranges=tmp_path / "imported.ranges", out=tmp_path / "int8.onnx")


def test_a_fifth_of_the_images_twice(branches, drive, tmp_path):
    model, ranges = branches(), tmp_path / "m.ranges"
    calibrate(model, drive, out=ranges)
    noisy = tuple(np.minimum(f, 254) + np.uint8(1) for f in drive.frames[:2])  # other pixels, the same picture
    twice = dataclasses.replace(drive, frames=(*drive.frames[:16], *drive.frames[2:4], *noisy))
    with pytest.raises(
        CalibrationError,
        match=r"4 of 20 calibration images are copies .*: 1/1_6 is 0/0_2, 1/1_7 is 0/0_3, 1/1_8 is all but 0/0_0",
    ):
        calibrate(model, twice, out=ranges)


def test_a_network_that_overflows(branches, drive, tmp_path):
    model = branches()
    quantize(model, "fp16", out=tmp_path / "fp16.onnx", overflow_data=drive)
    loaded = onnx.load(model)
    for tensor in loaded.graph.initializer:
        if tensor.name == "w1":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e6), "w1"))
    onnx.save(loaded, tmp_path / "large.onnx")
    with pytest.raises(CalibrationError, match=r'large\.onnx overflows in FP16: .*"c1" of Conv "c1" \([\d.e+]+\)'):
        quantize(tmp_path / "large.onnx", "fp16", out=tmp_path / "large_fp16.onnx", overflow_data=drive)
    assert not (tmp_path / "large_fp16.onnx").exists()
