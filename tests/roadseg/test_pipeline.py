"""A whole pipeline from one file: what it makes, what it does not make again, and what it refuses."""

import shutil

import pytest

from roadseg.calib import Layers, TunedDetails, Tuning, Views
from roadseg.runtime import read_manifest, sha256_file
from roadseg.runtime.settings import read_settings

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("av")

CONFIG = """
title = "A stranger"
latency_frames = 2

[network]
net = "stranger:make"
weights = "net.pth"
spec = "spec.toml"
size = "64x96"

[data]
calibration = "folder:data"
evaluation = "folder:data"

[calibration]
count = 6

[engines]
compute_capabilities = ["8.6"]

[budget]
fp16 = 100
int8 = 100

[video]
source = "data/val/images"
"""


@pytest.fixture(scope="module")
def folder(stranger, tmp_path_factory):
    copy = tmp_path_factory.mktemp("pipeline") / "work"
    shutil.copytree(stranger, copy)
    (copy / "road.toml").write_text(CONFIG)
    return copy


def states(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("out/*") if path.suffix != ".html"}


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def test_everything_is_made_once_and_only_what_changed_again(roadseg, here):
    first = roadseg("pipeline", "road.toml", "--json")
    assert first.code == 0, first.err
    assert first.json["engines"] == ["model_fp32_sm86.plan", "model_fp16_sm86.plan", "model_int8_sm86.plan"]
    assert read_manifest(here / "out" / "model_int8_sm86.plan", "plan").spec.size == (64, 96)
    made = states(here)
    assert {"model_int8.onnx", "model.ranges", "labelled.mp4", "parity_int8.json", "latency.json"} <= made.keys()
    page = (here / "out" / "report.html").read_text()
    assert "A stranger" in page
    assert "ONNX INT8" in page
    assert ", where INT8 agrees least: on " in page

    assert roadseg("pipeline", "road.toml").code == 0
    assert states(here) == made

    (here / "road.toml").write_text(CONFIG.replace("count = 6", "count = 5"))
    assert roadseg("pipeline", "road.toml").code == 0
    changed = {name for name, state in states(here).items() if made.get(name) != state}
    assert changed >= {"model.ranges", "model_int8.onnx", "model_int8_sm86.plan", "parity_int8.json"}
    assert not changed & {"model_fp32.onnx", "model_fp16.onnx", "model_fp16_sm86.plan", "parity_fp16.json"}


def test_int8_can_be_repaired(roadseg, here):
    repaired = (
        CONFIG + '\n[quantize]\nrest = "fp32"\n' + "\n[repair]\nequalise = true\nbiases = true\nbias_count = 2\n"
    )
    (here / "road.toml").write_text(
        repaired.replace("[network]", 'precisions = ["int8"]\nreport = false\n[network]')
    )
    done = roadseg("pipeline", "road.toml", "--json")
    assert done.code == 0, done.err
    made = {path.name: sha256_file(path) for path in here.glob("out/*.onnx")}
    told = roadseg("inspect", here / "out" / "model_int8.onnx", "--json").json["provenance"]
    assert told["onnx"] == made["model_equalised.onnx"]
    assert told["unequalised_onnx"] == made["model_fp32.onnx"]
    assert told["uncorrected_onnx"] == made["model_int8_uncorrected.onnx"]
    before = states(here)
    assert roadseg("pipeline", "road.toml").code == 0
    assert states(here) == before


def test_int8_can_be_made_of_weights_that_were_learned_for_it(roadseg, here):
    tuned = CONFIG + "\n[repair]\nequalise = true\n[finetune]\ncount = 4\nepochs = 1\nlabel_weight = 0.5\n"
    tuned += "scales = [1.0, 2.0]\nflip = true\n"
    (here / "road.toml").write_text(tuned.replace("[network]", 'precisions = ["int8"]\nreport = false\n[network]'))
    done = roadseg("pipeline", "road.toml", "--json")
    assert done.code == 0, done.err
    made = {path.name: sha256_file(path) for path in here.glob("out/*") if path.is_file()}
    told = roadseg("inspect", here / "out" / "model_int8.onnx", "--json").json["provenance"]
    assert (told["onnx"], told["ranges"]) == (made["model_tuned.onnx"], made["model_tuned.ranges"])
    assert (told["float_onnx"], told["float_ranges"]) == (made["model_equalised.onnx"], made["model.ranges"])
    tuning = read_manifest(here / "out" / "model_tuned.ranges", "ranges").details_as(TunedDetails).tuning
    assert tuning == Tuning(1, 4, 3e-3, 0, label_weight=0.5, views=Views((1.0, 2.0), flip=True))
    before = states(here)
    assert roadseg("pipeline", "road.toml").code == 0
    assert states(here) == before


def test_int8_can_keep_to_its_budget_by_layers_that_stay_float(roadseg, here):
    searched = CONFIG + "\n[repair]\nbiases = true\nbias_count = 2\nlayers = true\nlayers_count = 2\n"
    (here / "road.toml").write_text(searched.replace("[network]", 'precisions = ["int8"]\n[network]'))
    done = roadseg("pipeline", "road.toml", "--json")
    assert done.code == 0, done.err
    assert "INT8, accuracy against time" in (here / "out" / "report.html").read_text()
    # A budget of 100 asks for nothing: neither float layers nor corrected biases.
    assert read_settings(here / "out" / "model_int8.layers.toml", Layers).kept == ()
    told = roadseg("inspect", here / "out" / "model_int8.onnx", "--json").json["provenance"]
    assert told["onnx"] == sha256_file(here / "out" / "model_fp32.onnx")
    assert "uncorrected_onnx" not in told
    before = states(here)
    assert roadseg("pipeline", "road.toml").code == 0
    assert states(here) == before


def test_a_model_beyond_its_budget_gets_no_engine_and_the_command_leaves_with_3(roadseg, here):
    # An untrained network may gain by rounding, but nothing gains 100.
    strict = CONFIG.replace("int8 = 100", "int8 = -100")
    (here / "strict.toml").write_text(
        'out = "strict"\nreport = false\n' + strict.replace("latency_frames = 2", "latency_frames = 0")
    )
    answer = roadseg("pipeline", "strict.toml")
    assert answer.code == 3
    assert "INT8 lost" in answer.err
    assert (here / "strict" / "model_fp16_sm86.plan").is_file()
    assert not (here / "strict" / "model_int8_sm86.plan").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (CONFIG.replace("count = 6", "cuont = 6"), "there is no setting calibration.cuont"),
        (CONFIG.replace('size = "64x96"', ""), "missing required field `size`"),
        (CONFIG.replace("count = 6", 'count = "six"'), "Expected `int`, got `str`"),
        (CONFIG + '\n[quantize]\nrest = "fp8"\n', "Invalid enum value 'fp8'"),
        ("= what", "is not TOML"),
    ],
)
def test_a_wrong_setting_is_named(roadseg, here, text, sentence):
    (here / "wrong.toml").write_text(text)
    answer = roadseg("pipeline", "wrong.toml")
    assert answer.code == 2
    assert sentence in answer.err.replace("\n", " ")
