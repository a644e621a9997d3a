"""The documented commands, on a network from outside: what they print, and how they fail."""

import dataclasses
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest

from roadseg.calib import Ranges, format_cache, read_ranges
from roadseg.runtime import ModelSpec, Segmenter, read_manifest, write_with_manifest


@pytest.fixture(scope="module")
def made(stranger, tmp_path_factory):
    """What export, calibrate and quantize make of the stranger, by the commands alone."""
    out = tmp_path_factory.mktemp("made")
    run = [sys.executable, "-m", "roadseg"]
    data = f"folder:{stranger / 'data'}"
    for command in (
        ["export", "--net", "stranger:make", "--weights", stranger / "net.pth", "--spec", stranger / "spec.toml",
         "--size", "64x96", "--data", data, "--out", out / "m.onnx"],
        ["calibrate", out / "m.onnx", "--data", data, "--count", "8", "--out", out / "m.ranges"],
        ["quantize", out / "m.onnx", "--precision", "int8", "--ranges", out / "m.ranges",
         "--out", out / "m_int8.onnx"],
        ["quantize", out / "m.onnx", "--precision", "fp16", "--data", data, "--split", "train",
         "--out", out / "m_fp16.onnx"],
    ):  # fmt: skip
        done = subprocess.run(
            [*run, *map(str, command)], cwd=stranger, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return out


def test_the_stranger_keeps_its_contract(made):
    spec = Segmenter.open(made / "m_int8.onnx").spec
    assert spec == ModelSpec(
        "stranger:make", 64, 96, ("road", "car", "sky"), channels="bgr",
        mean=(0.4, 0.45, 0.5), std=(0.2, 0.2, 0.25),
        align_corners=False,
    )  # fmt: skip


def test_lint_names_the_layers_with_a_float_side(roadseg, made):
    printed = roadseg("lint", made / "m_int8.onnx", "--json").json
    assert (printed["layers"], printed["int8_layers"]) == (10, 10)  # two of them pool to 3x5
    assert {f["side"] for f in printed["findings"]} == {"output"}
    shown = roadseg("lint", made / "m_int8.onnx")
    assert (shown.code, shown.out) == (0, "")
    assert all(finding["node"] in shown.err.replace("\n", " ") for finding in printed["findings"])


def test_lint_asks_for_a_quantised_model(roadseg, made):
    refused(roadseg("lint", made / "m.onnx"), 1, "nothing in it is quantised")


def test_without_frames_it_is_said_that_nobody_looked_whether_fp16_overflows(roadseg, made, stranger, tmp_path):
    quantize = ["quantize", made / "m.onnx", "--precision", "fp16", "--out", tmp_path / "fp16.onnx"]
    said = "nobody has looked whether FP16 overflows"
    assert said in roadseg(*quantize).err
    looked = roadseg(*quantize, "--data", f"folder:{stranger / 'data'}")
    assert said not in looked.err
    assert "overflow_frames" in looked.err


def test_a_budget_ends_with_a_verdict(roadseg, made, stranger, tmp_path):
    quantize = ["quantize", made / "m.onnx", "--precision", "int8", "--ranges", made / "m.ranges", "--budget", 100]
    data = ["--data", f"folder:{stranger / 'data'}", "--count", 2, "--repair", f"folder:{stranger / 'data'}"]
    wanted = [*data, "--judge-split", "val", "--target", "t4", "--out", tmp_path / "int8.onnx"]
    verdict = roadseg(*quantize, *wanted, "--json").json["verdict"]
    assert [row["precision"] for row in verdict["candidates"]] == ["FP32", "FP16", "INT8"]
    shown = roadseg(*quantize, *wanted)
    assert (shown.code, shown.out) == (0, "")
    table = " ".join(shown.err.split())
    assert "worst class MACs in INT8 T4, estimated" in table
    assert f"It is furthest from FP32 on {verdict['candidates'][-1]['furthest']}:" in table
    assert "accuracy against time" in table
    assert re.search(r"0 (first weights |biases )?m\.ranges -?[0-9.]+", table)
    assert verdict["sentence"] in table
    assert "is equalised before" not in table
    assert "a network hardly errs" not in table


def test_a_budget_needs_no_ranges_where_there_are_frames_to_make_them_on(roadseg, made, stranger, tmp_path):
    data = ["--data", f"folder:{stranger / 'data'}", "--count", 2, "--repair", f"folder:{stranger / 'data'}"]
    wanted = [made / "m.onnx", "--precision", "int8", *data, "--out", tmp_path / "int8.onnx"]
    found = roadseg("quantize", *wanted, "--budget", 100, "--json").json
    again = ["--ranges", found["ranges"], "--layers", found["layers"], "--out", tmp_path / "again.onnx"]
    assert found["ranges"] == str(tmp_path / "int8.ranges")
    done = roadseg("quantize", found["model"], "--precision", "int8", *again, "--json")
    assert done.json["sha256"] == found["sha256"]
    assert roadseg("lint", tmp_path / "int8.onnx").code == 0


def test_a_budget_that_int8_exceeds_tells_where_int8_does_harm(roadseg, made, stranger, tmp_path):
    ranges = read_ranges(made / "m.ranges")
    spoilt = list(ranges.amax)[1]
    cut = Ranges({**ranges.amax, spoilt: ranges.amax[spoilt] / 50}, ranges.calibrator)
    manifest = read_manifest(made / "m.ranges", "ranges")
    write_with_manifest(tmp_path / "m.ranges", format_cache(cut), manifest)
    quantize = ["quantize", made / "m.onnx", "--precision", "int8", "--ranges", tmp_path / "m.ranges"]
    wanted = ["--budget", 2, "--data", f"folder:{stranger / 'data'}", "--out", tmp_path / "int8.onnx"]
    parts = roadseg(*quantize, *wanted, "--json").json["parts"]
    worst = max(parts, key=parts.__getitem__)
    shown = " ".join(roadseg(*quantize, *wanted).err.split())
    assert f"part lost {worst} {parts[worst]:.3f} " in shown
    assert "fewer may do if the model is equalised" in shown


def test_a_budget_on_frames_to_train_on_is_warned_of(roadseg, made, stranger, tmp_path):
    quantize = ["quantize", made / "m.onnx", "--precision", "int8", "--ranges", made / "m.ranges", "--budget", 100]
    data = ["--data", f"folder:{stranger / 'data'}", "--count", 2, "--split", "train"]
    said = "a network hardly errs on frames that it was trained on"
    assert said in roadseg(*quantize, *data, "--out", tmp_path / "int8.onnx").err
    assert said not in roadseg(*quantize, *data, "--judge-split", "val", "--out", tmp_path / "int8.onnx").err


def test_another_program_s_cache_becomes_ranges_and_is_checked(roadseg, made, stranger, tmp_path):
    data = ["--data", f"folder:{stranger / 'data'}", "--count", 4]
    cache = tmp_path / "foreign.cache"
    shutil.copy(made / "m.ranges", cache)
    command = ["import-ranges", made / "m.onnx", cache, *data]
    report = roadseg(*command, "--out", tmp_path / "m.ranges", "--json").json
    assert (report["tensors"], report["images"]) == (len(cache.read_text().splitlines()) - 1, 4)
    ranges = ["--ranges", tmp_path / "m.ranges", "--out", tmp_path / "int8.onnx"]
    assert roadseg("quantize", made / "m.onnx", "--precision", "int8", *ranges).code == 0

    checked = roadseg("check-ranges", made / "m.onnx", made / "m.ranges", *data)
    assert (checked.code, checked.out) == (0, "")
    name, scale = cache.read_text().splitlines()[3].split(": ")
    larger = struct.pack(">f", 8 * struct.unpack(">f", bytes.fromhex(scale))[0]).hex()
    cache.write_text(cache.read_text().replace(f"{name}: {scale}", f"{name}: {larger}"))
    refused(roadseg(*command, "--out", tmp_path / "no.ranges"), 1, f'"{name}"')
    assert not (tmp_path / "no.ranges").exists()


def test_the_rest_of_an_int8_model_can_be_float32(roadseg, made, tmp_path):
    quantize = ["quantize", made / "m.onnx", "--rest", "fp32", "--out", tmp_path / "int8.onnx"]
    done = roadseg(*quantize, "--precision", "int8", "--ranges", made / "m.ranges", "--json")
    assert (done.code, done.json["float32"]) == (0, {})
    lints = [roadseg("lint", path, "--json").json for path in (tmp_path / "int8.onnx", made / "m_int8.onnx")]
    halves = [sum(" as float16 by " in found["cause"] for found in lint["findings"]) for lint in lints]
    assert halves[0] == 0 < halves[1]
    refused(
        roadseg(*quantize[:-1], tmp_path / "no.onnx", "--precision", "fp16"), 2, "only INT8 models have a rest"
    )


def test_a_budget_finds_layers_that_can_be_given_again(roadseg, made, stranger, tmp_path):
    quantize = ["quantize", made / "m.onnx", "--precision", "int8", "--ranges", made / "m.ranges"]
    data = ["--data", f"folder:{stranger / 'data'}", "--count", 2]
    found = roadseg(*quantize, *data, "--budget", 100, "--out", tmp_path / "int8.onnx", "--json").json
    assert found["frames"] == 2
    assert found["kept"] == {}
    layers = tmp_path / "int8.layers.toml"
    again = roadseg(*quantize, "--layers", layers, "--out", tmp_path / "again.onnx", "--json").json
    assert again["sha256"] == found["sha256"]
    refused(roadseg(*quantize, *data, "--out", tmp_path / "no.onnx"), 2, "--repair are for a --budget; give one")
    refused(roadseg(*quantize, "--budget", 1, "--out", tmp_path / "no.onnx"), 2, "it needs --ranges, or --repair")
    twice = ["--ranges", made / "m.ranges"]
    refused(roadseg(*quantize, *twice, "--out", tmp_path / "no.onnx"), 2, "several --ranges are for a --budget")
    wrong = [*data, "--budget", 1, "--target", "orin"]
    refused(roadseg(*quantize, *wrong, "--out", tmp_path / "no.onnx"), 2, "no GPU 'orin' is known; take one of")
    layers.write_text('kept = ["/nowhere"]')
    refused(
        roadseg(*quantize, "--layers", layers, "--out", tmp_path / "no.onnx"), 1, "no layer '/nowhere' that could"
    )
    assert not (tmp_path / "no.onnx").exists()


def test_a_tuned_model_is_quantised_like_any_other(roadseg, made, stranger, tmp_path):
    command = ["finetune", made / "m.onnx", "--ranges", made / "m.ranges", "--data", f"folder:{stranger / 'data'}"]
    report = roadseg(*command, "--count", 4, "--epochs", 1, "--out", tmp_path / "qat.onnx", "--json").json
    assert (report["images"], report["steps"], report["layers"]) == (4, 1, 10)
    ranges = tmp_path / "qat.ranges"
    assert report["ranges"] == str(ranges)
    quantize = ["quantize", tmp_path / "qat.onnx", "--precision", "int8", "--ranges"]
    assert roadseg(*quantize, ranges, "--out", tmp_path / "int8.onnx").code == 0
    refused(roadseg(*quantize, made / "m.ranges", "--out", tmp_path / "no.onnx"), 1, "ranges of another model")
    refused(roadseg(*command, "--rate", 2, "--out", tmp_path / "no.onnx"), 2, "a rate between 0 and 1")
    refused(roadseg(*command, "--out", made / "m.onnx"), 2, "would be replaced by what is written")
    refused(roadseg(*command, "--scales", "1,0.5", "--out", tmp_path / "no.onnx"), 2, "scales are numbers from 1")
    refused(roadseg(*command, "--label-weight", -1, "--out", tmp_path / "no.onnx"), 2, "a weight of 0 or more")
    video = ["finetune", made / "m.onnx", "--ranges", made / "m.ranges", "--data", "scenes:count=4"]
    wanted = [*video, "--label-weight", 1, "--out", tmp_path / "no.onnx"]
    said = "labels of 19 classes (road, sidewalk, building, ...), stranger:make answers with 3"
    refused(roadseg(*wanted), 1, said)
    refused(roadseg("evaluate", made / "m.onnx", "--data", "scenes:count=2"), 1, said)
    assert not (tmp_path / "no.onnx").exists()


def test_overflow_looks_at_the_tensors_of_a_float_model(roadseg, made, stranger):
    data = ["--data", f"folder:{stranger / 'data'}", "--count", 2]
    printed = roadseg("overflow", made / "m.onnx", *data, "--json").json
    assert printed["images"] == 2
    assert printed["tensors"] > 20
    assert printed["near_overflow"] == []
    refused(roadseg("overflow", made / "m_fp16.onnx", *data), 1, "is FP16 already")


@pytest.mark.parametrize(("name", "least"), [("m_fp16.onnx", 99.0), ("m_int8.onnx", 80.0)])
def test_parity_prints_json_alone_and_its_budget_decides_the_exit_code(roadseg, made, stranger, name, least):
    command = ["parity", made / "m.onnx", made / name, "--data", f"folder:{stranger / 'data'}", "--json"]
    generous = roadseg(*command, "--budget", 100)
    assert generous.code == 0
    assert generous.json["within_budget"]
    assert generous.json["pixel_agreement"] > least
    drop = generous.json["miou_drop"]
    if drop > 0.001:
        strict = roadseg(*command, "--budget", drop * 0.9)
        assert strict.code == 3
        assert not strict.json["within_budget"]
        assert "below the reference" in strict.err


def test_evaluate_reports_every_class_in_percent(roadseg, made, stranger):
    answer = roadseg("evaluate", made / "m.onnx", "--data", f"folder:{stranger / 'data'}", "--json")
    assert answer.code == 0
    assert answer.json["frames"] == 6
    assert set(answer.json["per_class_iou"]) == {"road", "car", "sky"}
    assert 0 < answer.json["miou"] < 100


@pytest.mark.parametrize("name", ["m.onnx", "m_fp16.onnx", "m_int8.onnx"])
def test_every_precision_builds_without_a_gpu_and_says_why_it_cannot_run(roadseg, made, tmp_path, name):
    pytest.importorskip("tensorrt_rtx")
    plan = tmp_path / "m.plan"
    assert (
        roadseg("build", made / name, "--flavour", "rtx", "--compute-capability", "8.6", "--out", plan).code == 0
    )
    assert roadseg("inspect", plan, "--json").json["details"]["compute_capabilities"] == ["8.6"]
    opened = roadseg("run", plan, "--source", tmp_path, "--out", tmp_path / "x.mp4")
    assert opened.code == 1
    assert "cuda" not in opened.err.replace("libcuda.so.1", "").lower()
    assert opened.err.count("\n") == 1


@pytest.mark.parametrize("option", [("--precision", "int8"), ("--timing-cache", "t.cache")])
def test_a_setting_that_this_tensorrt_does_not_have_is_wrong_usage(roadseg, made, tmp_path, option):
    pytest.importorskip("tensorrt_rtx")
    refused(roadseg("build", made / "m.onnx", "--flavour", "rtx", *option, "--out", tmp_path / "m.plan"), 2)
    assert not (tmp_path / "m.plan").exists()


def test_inspect_tells_what_a_model_is(roadseg, made):
    told = roadseg("inspect", made / "m_int8.onnx", "--json").json
    assert (told["kind"], told["precision"], told["inputs"], told["outputs"]) == (
        "onnx",
        "int8",
        ["frames"],
        ["labels"],
    )
    assert roadseg("inspect", made / "m.ranges", "--json").json["kind"] == "ranges"


def test_doctor_says_what_works(roadseg):
    told = roadseg("doctor", "--json").json
    assert "export" in told["works"]
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))


def test_run_labels_a_folder_of_images(roadseg, made, stranger, tmp_path):
    pytest.importorskip("av")
    source = stranger / "data" / "val" / "images"
    answer = roadseg("run", made / "m_int8.onnx", "--source", source, "--out", tmp_path / "out.mp4", "--json")
    assert answer.code == 0
    assert answer.json["frames"] == 6
    assert answer.json.keys() >= {"frames", "dropped", "fps", "p50_ms", "p90_ms", "p99_ms"}


# What is wrong, and the one sentence that says so.


@dataclasses.dataclass
class Place:
    """A copy of everything, to spoil."""

    folder: object
    data: str


@pytest.fixture
def place(made, stranger, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "made")
    shutil.copytree(stranger, tmp_path / "stranger")
    monkeypatch.chdir(tmp_path / "stranger")
    return Place(tmp_path, f"folder:{tmp_path / 'stranger' / 'data'}")


def refused(answer, code, *words):
    """One sentence or two on standard error, nothing on standard output, no traceback."""
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert "should not" not in answer.err
    for word in words:
        assert word in answer.err.replace("\n", " ")


def test_a_missing_file(roadseg, place):
    refused(roadseg("evaluate", "none.onnx", "--data", place.data), 1, "none.onnx does not exist")
    refused(roadseg("quantize", "none.onnx", "--precision", "fp16", "--out", "x.onnx"), 1, "none.onnx")
    refused(roadseg("build", "none.onnx", "--flavour", "rtx", "--out", "x.plan"), 1, "none.onnx")
    refused(roadseg("pipeline", "none.toml"), 2, "none.toml cannot be read")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_a_truncated_onnx_file(roadseg, place, share):
    path = place.folder / "made" / "m.onnx"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(roadseg("evaluate", path, "--data", place.data), 1, "cut short")
    refused(roadseg("quantize", path, "--precision", "fp16", "--out", "x.onnx"), 1, "cut short")
    refused(roadseg("build", path, "--flavour", "rtx", "--out", "x.plan"), 1, "cut short")


def test_an_onnx_file_of_another_opset(roadseg, place):
    path = place.folder / "made" / "m.onnx"
    model = onnx.load(path)
    model.opset_import[0].version = 11
    onnx.save(model, path)
    refused(roadseg("quantize", path, "--precision", "fp16", "--out", "x.onnx"), 1, "uses ONNX opset 11")
    refused(roadseg("build", path, "--flavour", "rtx", "--out", "x.plan"), 1, "uses ONNX opset 11")


def test_a_checkpoint_with_other_keys(roadseg, place):
    answer = roadseg(
        "export",
        "--net",
        "fastscnn",
        "--weights",
        "net.pth",
        "--spec",
        "spec.toml",
        "--size",
        "64x96",
        "--out",
        "x.onnx",
    )
    refused(answer, 1, "does not fit FastSCNN", "missing", "unexpected")
    assert not os.path.exists("x.onnx")  # noqa: PTH110


def test_labels_of_another_size(roadseg, place):
    labels = place.folder / "stranger" / "data" / "val" / "labels" / "3.png"
    cv2.imwrite(str(labels), np.zeros((32, 48), np.uint8))
    answer = roadseg("evaluate", place.folder / "made" / "m.onnx", "--data", place.data)
    refused(answer, 1, "3.png has 32x48 labels for a frame of 64x96")


def test_an_unreadable_image_among_the_calibration_images(roadseg, place):
    image = place.folder / "stranger" / "data" / "train" / "images" / "7.png"
    image.write_bytes(image.read_bytes()[:-40])
    out = place.folder / "new.ranges"
    answer = roadseg(
        "calibrate", place.folder / "made" / "m.onnx", "--data", place.data, "--count", 12, "--out", out
    )
    refused(answer, 1, "7.png is not an image that can be read")
    assert not out.exists()


def test_calibration_on_validation_images(roadseg, place):
    command = ["calibrate", place.folder / "made" / "m.onnx", "--data", place.data, "--split", "val", "--count", 4]
    refused(roadseg(*command, "--out", place.folder / "v.ranges"), 1, "val")
    assert roadseg(*command, "--force", "--out", place.folder / "v.ranges").code == 0


def test_several_methods_write_a_file_each(roadseg, place):
    command = ["calibrate", place.folder / "made" / "m.onnx", "--data", place.data, "--count", 4, "--json"]
    out = place.folder / "several.ranges"
    answer = roadseg(*command, "--method", "minmax,percentile", "--out", out)
    assert answer.code == 0
    assert [report["method"] for report in answer.json.values()] == ["minmax", "percentile"]
    assert sorted(path.name for path in place.folder.glob("several*.ranges")) == [
        "several_minmax.ranges",
        "several_percentile.ranges",
    ]
    assert not out.exists()


def test_a_method_there_is_not(roadseg, place):
    command = [
        "calibrate",
        place.folder / "made" / "m.onnx",
        "--data",
        place.data,
        "--out",
        place.folder / "x.ranges",
    ]
    refused(roadseg(*command, "--method", "minmax,average"), 2, 'there is no method "average"')


def test_a_manifest_edited_by_hand(roadseg, place):
    manifest = place.folder / "made" / "m.ranges.json"
    manifest.write_text(manifest.read_text().replace('"entropy"', '"minmax"'))
    made = place.folder / "made"
    answer = roadseg(
        "quantize", made / "m.onnx", "--precision", "int8", "--ranges", made / "m.ranges", "--out", "x.onnx"
    )
    refused(answer, 1, "was edited after roadseg wrote it")
    refused(roadseg("inspect", made / "m.ranges"), 1, "was edited after roadseg wrote it")


def test_ranges_of_another_model(roadseg, place):
    made = place.folder / "made"
    model = onnx.load(made / "m.onnx")
    model.producer_name = "somebody else"
    onnx.save(model, made / "m.onnx")
    answer = roadseg(
        "quantize", made / "m.onnx", "--precision", "int8", "--ranges", made / "m.ranges", "--out", "x.onnx"
    )
    refused(answer, 1, "holds the ranges of another model")


def test_a_full_disk(place):
    """A limit on the size of files, which writing meets as it would meet a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    made = place.folder / "made"
    out = place.folder / "full.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "roadseg", "quantize", made / "m.onnx", "--precision", "fp16", "--out", out],
        preexec_fn=limit, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "full.onnx cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_video_that_ends_mid_frame(roadseg, place):
    av = pytest.importorskip("av")
    clip = place.folder / "clip.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for i in range(20):
            frame = np.full((64, 96, 3), 5 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    clip.write_bytes(clip.read_bytes()[: int(0.6 * clip.stat().st_size)])
    out = place.folder / "labelled.mp4"
    refused(
        roadseg("run", place.folder / "made" / "m.onnx", "--source", clip, "--out", out),
        1,
        "cut short: after frame",
    )
    assert not out.exists()


def test_an_equalised_model_goes_the_same_way(roadseg, place):
    made, out = place.folder / "made", place.folder / "equal.onnx"
    done = roadseg("equalise", made / "m.onnx", "--data", place.data, "--count", 4, "--out", out, "--json")
    assert done.code == 0
    assert done.json["images"] == 4
    refused(
        roadseg("quantize", out, "--precision", "int8", "--ranges", made / "m.ranges", "--out", "x.onnx"),
        1,
        "ranges of another model",
    )


def test_biases_are_corrected_against_the_float_model(roadseg, place):
    made, out = place.folder / "made", place.folder / "corrected.onnx"
    command = ["correct-bias", made / "m.onnx", made / "m_int8.onnx", "--data", place.data, "--out", out]
    done = roadseg(*command, "--count", 2, "--json")
    assert done.code == 0
    assert 0 < done.json["corrected"] == done.json["layers"] - len(done.json["kept"])
    assert done.json["divergence"] < done.json["divergence_before"]
    assert roadseg("inspect", out, "--json").json["precision"] == "int8"
    refused(roadseg(*command, "--split", "val"), 1, "val")


def test_ranges_are_chosen_from_several_methods(roadseg, place):
    made, data = place.folder / "made", ["--data", place.data, "--count", 2]
    roadseg("calibrate", made / "m.onnx", *data, "--method", "mse,minmax", "--out", made / "c.ranges")
    choose, out = ["choose-ranges", made / "m.onnx", made / "c_mse.ranges"], made / "best.ranges"
    done = roadseg(*choose, made / "c_minmax.ranges", *data, "--out", out, "--json")
    assert done.code == 0
    assert done.json["divergence"] <= min(done.json["divergences"].values())
    quantized = roadseg("quantize", made / "m.onnx", "--precision", "int8", "--ranges", out, "--out", "x.onnx")
    assert quantized.code == 0
    refused(roadseg(*choose, *data, "--out", "x.ranges"), 2, "two methods or more, got 1 file")


def test_weights_are_rounded_anew_before_biases_are_corrected(roadseg, place):
    made, out, last = place.folder / "made", place.folder / "rounded.onnx", place.folder / "last.onnx"
    options = ["--data", place.data, "--count", 2, "--json"]
    done = roadseg("round-weights", made / "m.onnx", made / "m_int8.onnx", *options, "--out", out)
    assert done.code == 0
    assert len(done.json["rounded"]) + len(done.json["kept"]) == done.json["layers"] > 0
    assert all(layer["error_after"] < layer["error_before"] for layer in done.json["rounded"].values())
    assert roadseg("correct-bias", made / "m.onnx", out, *options, "--out", last).code == 0
    refused(
        roadseg("round-weights", made / "m.onnx", last, *options, "--out", "x.onnx"), 1, "are corrected already"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["fly"],
        ["export"],
        ["evaluate", "m.onnx", "--data", "kitti:/x"],
        ["evaluate", "spec.toml", "--data", "scenes:count=2"],
        ["export", "--net", "fastscnn", "--weights", "nowhere", "--out", "x.onnx"],
        ["export", "--net", "fastscnn", "--weights", "net.pth", "--size", "360", "--out", "x.onnx"],
        ["export", "--net", "fastscnn", "--weights", "net.pth", "--size", "64x96", "--out", "x.onnx"],
        ["quantize", "m.onnx", "--precision", "int4", "--out", "x.onnx"],
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(roadseg, place, command):
    refused(roadseg(*command), 2)
