import dataclasses

import msgspec
import pytest

from roadseg.calib import METHODS, calibrate, calibrate_each, check_ranges, files_by_method, read_ranges
from roadseg.calib.cache import Ranges, format_cache
from roadseg.calib.check_ranges import Fit, RangesCheck, collect, compare_ranges, representatives
from roadseg.calib.placement import Placement, place
from roadseg.runtime import CalibrationError, read_manifest, write_with_manifest
from roadseg.runtime.onnxfile import load_onnx, onnx_spec


def change(ranges, tensors, factor):
    """Multiply ranges in a file, and sign it anew, as a faulty tool of ours would."""
    found = read_ranges(ranges)
    amax = found.amax | {name: found.amax[name] * factor for name in tensors}
    write_with_manifest(ranges, format_cache(Ranges(amax, found.calibrator)), read_manifest(ranges, "ranges"))


@pytest.fixture
def drive(scenes):
    return scenes(16, 16, groups=(24,))


def test_ranges_by_every_method_pass_on_other_frames(branches, drive, tmp_path):
    model, outs = branches(), files_by_method(tmp_path / "m.ranges", METHODS)
    calibrate_each(model, drive, outs, count=12, seed=1)
    for method, ranges in outs.items():
        check = check_ranges(model, ranges, drive, count=8, seed=2)
        assert (check.method, check.images, check.off) == (method, 8, ())
        assert [fit.tensor for fit in check.fits] == ["pixels", "stem", "both", "deep", "last"]


def test_any_one_that_was_scaled_by_eight_is_off_and_no_other(branches, drive):
    model = load_onnx(branches())
    spec, placement = onnx_spec(model, "m"), place(model)
    calibrated = collect(model, spec, placement, drive.frames[:12])
    observed = collect(model, spec, placement, drive.frames[12:])
    for method in METHODS:
        right = calibrated.ranges(method)
        assert compare_ranges(right, observed, method).off == ()
        for tensor in ("pixels", "stem", "deep", "last"):
            for factor in (8, 1 / 8):
                wrong = Ranges(right.amax | {tensor: right.amax[tensor] * factor}, right.calibrator)
                assert [fit.tensor for fit in compare_ranges(wrong, observed, method).off] == [tensor]


def test_a_tensor_that_is_off_is_named_with_its_range_and_what_was_seen(branches, drive, tmp_path):
    model, ranges = branches(), tmp_path / "m.ranges"
    calibrate(model, drive, out=ranges, count=12)
    change(ranges, ["deep"], 8)
    with pytest.raises(
        CalibrationError,
        match=r'm\.ranges does not fit 16 frames of folder:.*: of 5 ranges 1 is off\. "deep" has the range '
        r"[\d.]+, where [\d.]+ is expected and [\d.]+ the largest value\.",
    ):
        check_ranges(model, ranges, drive)


def test_those_of_a_concatenation_are_one_fault(branches, drive, tmp_path):
    model, ranges = branches(), tmp_path / "m.ranges"
    calibrate(model, drive, out=ranges)
    change(ranges, ["left", "right", "both"], 8)
    with pytest.raises(CalibrationError, match=r'of 5 ranges 1 is off\. "both" has'):
        check_ranges(model, ranges, drive)


def test_a_wide_range_is_off_only_beyond_every_value():
    # 2.8 times what is expected, twice.
    assert Fit("t", amax=28.1, expected=10, least=5, largest=28).is_off
    assert not Fit("t", amax=27.9, expected=10, least=5, largest=9).is_off
    assert not Fit("t", amax=28.1, expected=10, least=5, largest=29).is_off  # min-max would take it


def test_a_narrow_range_is_off_only_below_every_method():
    assert Fit("t", amax=2.8, expected=10, least=2.9, largest=28).is_off
    assert not Fit("t", amax=2.9, expected=10, least=3, largest=28).is_off
    assert not Fit("t", amax=2.8, expected=10, least=2.7, largest=28).is_off


def test_together_they_are_off_by_the_root_mean_square_of_log2():
    # 2 times, 4 times, a half: bits 1, 2, -1, squares 1 + 4 + 1, a third of that 2.
    fits = tuple(Fit("t", amax, 1.0, 1.0, 1.0) for amax in (2.0, 4.0, 0.5))
    assert RangesCheck("mse", 1, fits).bits == pytest.approx(2**0.5)
    assert RangesCheck("mse", 1, ()).bits == 0


def test_of_tensors_with_one_scale_the_largest_stands_for_all():
    placement = Placement((), ("a", "b", "c"), (frozenset("bc"),))
    assert representatives(Ranges({"a": 1.0, "b": 2.0, "c": 3.0}, "MinMaxCalibration"), placement) == ["a", "c"]


def test_the_nearest_method_is_found_where_none_is_known(branches, drive, tmp_path):
    model = load_onnx(branches())
    spec = onnx_spec(model, "m")
    observed = collect(model, spec, place(model), drive.frames)
    for method in ("entropy", "minmax"):
        check = compare_ranges(observed.ranges(method), observed, None)
        assert (check.method, round(check.bits, 6)) == (method, 0)


def test_a_tensor_of_zeros_is_not_judged(branches, drive):
    model = load_onnx(branches())
    dark = dataclasses.replace(drive, frames=tuple(f * 0 for f in drive.frames))
    observed = collect(model, onnx_spec(model, "m"), place(model), dark.frames)
    assert compare_ranges(observed.ranges("mse"), observed, None).fits == ()


def test_ranges_of_another_model_are_refused_by_both_hashes(branches, drive, tmp_path):
    calibrate(branches(0), drive, out=tmp_path / "m.ranges")
    with pytest.raises(CalibrationError, match=r"m\.ranges holds the ranges of another model .*branches_1\.onnx"):
        check_ranges(branches(1), tmp_path / "m.ranges", drive)


def test_the_summary_tells_the_furthest(branches, drive, tmp_path):
    calibrate(branches(), drive, out=tmp_path / "m.ranges", method="minmax")
    told = check_ranges(branches(), tmp_path / "m.ranges", drive, count=24).summary()
    assert (told["method"], told["images"], told["tensors"], told["rms_bits"]) == ("minmax", 24, 5, 0.0)
    assert msgspec.json.encode(told)
