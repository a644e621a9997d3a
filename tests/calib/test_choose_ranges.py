import dataclasses

import numpy as np
import pytest

from roadseg.calib import ChosenDetails, calibrate, calibrate_each, choose_ranges, finetune, quantize, read_ranges
from roadseg.calib.cache import Ranges, format_cache
from roadseg.calib.choose_ranges import Harm, combine, read_sources, units
from roadseg.calib.observe import Frames
from roadseg.calib.placement import place
from roadseg.calib.source import load_float_model
from roadseg.runtime import (
    ArtifactError,
    CalibrationError,
    ModelSpec,
    UsageError,
    read_manifest,
    sha256_file,
    write_with_manifest,
)
from roadseg.runtime.onnxfile import onnx_spec


@pytest.fixture
def collected(scenes, tmp_path):
    """A function that calibrates a model by several methods: files by method."""

    def make(model, methods=("entropy", "minmax", "mse"), dataset=None):
        outs = {method: tmp_path / f"m_{method}.ranges" for method in methods}
        calibrate_each(model, dataset or scenes(16, 16), outs)
        return outs

    return make


def rewrite(path, amax):
    """Put other ranges into a file that calibrate wrote."""
    found = read_ranges(path)
    write_with_manifest(
        path,
        format_cache(dataclasses.replace(found, amax=found.amax | amax)),
        read_manifest(path, "ranges"),
    )


def harm_of(model, dataset):
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    any_ranges = Ranges(dict.fromkeys(place(network).activations, 1.0), "MinMaxCalibration")
    return Harm(network, spec, Frames(dataset, spec, len(dataset), 0, False), any_ranges)


def test_each_tensor_gets_the_range_that_harms_least(mobile, collected, scenes, tmp_path):
    outs = collected(mobile)
    names = list(read_ranges(outs["minmax"]).amax)
    # Each file is spoilt for a tensor of its own: so long a range that four steps are left of it.
    for name, path in zip(names, outs.values(), strict=False):
        rewrite(path, {name: 30 * read_ranges(path).amax[name]})
    report = choose_ranges(mobile, list(outs.values()), scenes(16, 16), out=tmp_path / "m.ranges", count=2)
    methods = read_manifest(tmp_path / "m.ranges", "ranges").details_as(ChosenDetails).methods
    assert all(methods[name] != method for name, method in zip(names, outs, strict=False))
    assert report.divergence < min(report.divergences.values()) / 2


def test_the_file_holds_what_the_manifest_says(mobile, collected, scenes, tmp_path):
    outs, out = collected(mobile), tmp_path / "m.ranges"
    report = choose_ranges(mobile, list(outs.values()), scenes(16, 16), out=out, count=3)
    manifest = read_manifest(out, "ranges")
    details = manifest.details_as(ChosenDetails)
    sources = {method: read_ranges(path).amax for method, path in outs.items()}
    hashes = {method: sha256_file(path) for method, path in outs.items()}
    assert read_ranges(out).amax == {name: sources[method][name] for name, method in details.methods.items()}
    assert details.sources == hashes
    assert manifest.inputs == {
        "onnx": sha256_file(mobile),
        "images": details.images.sha256,
        **{f"{method}_ranges": sha256 for method, sha256 in hashes.items()},
    }
    assert len(details.images.images) == report.images == 3
    assert details.divergences == report.divergences
    assert details.divergence == report.divergence <= min(report.divergences.values())
    assert sum(report.tensors.values()) == len(details.methods)


def test_quantize_takes_it_and_the_divergence_is_that_of_the_model(mobile, collected, scenes, tensors, tmp_path):
    dataset = scenes(16, 16)
    report = choose_ranges(mobile, list(collected(mobile).values()), dataset, out=tmp_path / "m.ranges")
    quantize(mobile, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx")
    found = []
    for exact, typed in zip(
        *(tensors(path, ["logits"], dataset) for path in (mobile, tmp_path / "int8.onnx")), strict=True
    ):
        p, q = (np.exp(each["logits"]) / np.exp(each["logits"]).sum(axis=1) for each in (exact, typed))
        found.append((p * np.log(p / q)).sum(axis=1).mean())
    # Not exactly: with fixed scales ONNX Runtime adds up in integers.
    assert np.mean(found) == pytest.approx(report.divergence, rel=0.02)


def test_tensors_that_are_concatenated_are_one(graph, save, collected, scenes, tmp_path):
    model = graph(
        """g (float[1,3,8,8] images) => (float[1,2,8,8] logits) {
            a = Conv(images, w1)
            b = Conv(images, w2)
            c = Concat<axis=1>(a, b)
            logits = Conv(c, w3)
        }""",
        w1=(2, 3, 1, 1),
        w2=(np.array([[8, 1, 1], [1, 8, 1]], np.float32)).reshape(2, 3, 1, 1),
        w3=(2, 4, 1, 1),
    )
    path = save(tmp_path / "m.onnx", model, ModelSpec("m", 8, 8, classes=("road", "sky"), io="tensor"))
    assert units(place(load_float_model(path))) == [("images",), ("a", "b", "c")]
    outs = collected(path, ("minmax", "percentile"), scenes())
    rewrite(outs["minmax"], dict.fromkeys("abc", 1e-3))
    choose_ranges(path, list(outs.values()), scenes(), out=tmp_path / "m.ranges")
    chosen = read_ranges(tmp_path / "m.ranges").amax
    assert chosen["a"] == chosen["b"] == chosen["c"] == read_ranges(outs["percentile"]).amax["c"]


def test_a_trial_that_is_no_better_is_cut_short(mobile, scenes):
    harm = harm_of(mobile, scenes(16, 16))
    ranges = Ranges(dict.fromkeys(place(load_float_model(mobile)).activations, 2.0), "MinMaxCalibration")
    whole = harm.divergence(ranges)
    assert 0 < whole < np.inf
    assert harm.divergence(ranges, whole) == np.inf
    assert harm.divergence(ranges, np.nextafter(whole, 1)) == whole


def test_a_frame_model_is_chosen_for_by_its_logits(small, collected, scenes, tmp_path):
    outs = collected(small, ("entropy", "minmax"), scenes())
    report = choose_ranges(small, list(outs.values()), scenes(), out=tmp_path / "m.ranges")
    assert set(report.divergences) == {"entropy", "minmax"}
    assert quantize(small, "int8", ranges=tmp_path / "m.ranges", out=tmp_path / "int8.onnx").typed_layers == 2


def test_the_same_inputs_give_the_same_bytes(mobile, collected, scenes, tmp_path):
    outs = list(collected(mobile).values())
    paths = (tmp_path / "a.ranges", tmp_path / "b.ranges")
    assert len({choose_ranges(mobile, outs, scenes(16, 16), out=path).sha256 for path in paths}) == 1
    assert len({sha256_file(path.with_name(path.name + ".json")) for path in paths}) == 1


def test_there_has_to_be_a_choice(mobile, small, collected, scenes, tmp_path):
    outs, out = collected(mobile), tmp_path / "m.ranges"

    def refused(error, text, *ranges, model=mobile, dataset=None):
        with pytest.raises(error, match=text):
            choose_ranges(model, list(ranges), dataset or scenes(16, 16), out=out)
        assert not out.exists()

    refused(UsageError, "two methods or more, got 1 file", outs["mse"])
    refused(CalibrationError, r"m_mse\.ranges is by mse, like another file", outs["mse"], outs["mse"])
    refused(CalibrationError, "ranges of another model", *outs.values(), model=small)
    refused(CalibrationError, "there to measure", *outs.values(), dataset=scenes(16, 16, split="val"))
    refused(ArtifactError, "none.ranges", outs["mse"], tmp_path / "none.ranges")


def test_ranges_of_other_tensors_are_refused(mobile, collected, scenes, tmp_path):
    outs = collected(mobile)
    rewrite(outs["mse"], {"projected": 1.0})
    with pytest.raises(CalibrationError, match=r'm_mse\.ranges does not hold .* \("projected" is in one of them'):
        choose_ranges(mobile, list(outs.values()), scenes(16, 16), out=tmp_path / "m.ranges")


def test_chosen_ranges_are_not_chosen_from_again(mobile, collected, scenes, tmp_path):
    outs = list(collected(mobile).values())
    choose_ranges(mobile, outs, scenes(16, 16), out=tmp_path / "m.ranges")
    with pytest.raises(CalibrationError, match=r"m\.ranges was chosen tensor by tensor already"):
        choose_ranges(mobile, [outs[0], tmp_path / "m.ranges"], scenes(16, 16), out=tmp_path / "again.ranges")


def test_learned_ranges_are_not_mixed_with_others(mobile, collected, scenes, tmp_path):
    frames = scenes(16, 16)
    tuned = finetune(mobile, collected(mobile)["mse"], frames, out=tmp_path / "tuned.onnx", epochs=1)
    calibrate(tuned.path, frames, out=tmp_path / "minmax.ranges", method="minmax")
    with pytest.raises(CalibrationError, match=r"tuned\.ranges was learned with the weights"):
        choose_ranges(
            tuned.path, [tuned.ranges, tmp_path / "minmax.ranges"], frames, out=tmp_path / "again.ranges"
        )


def test_ranges_are_combined_by_tensor(mobile, collected):
    outs = collected(mobile, ("minmax", "mse"))
    sources = read_sources(list(outs.values()), mobile, sha256_file(mobile), place(load_float_model(mobile)))
    first, *others = read_ranges(outs["mse"]).amax
    found = combine(sources, {first: "mse"} | dict.fromkeys(others, "minmax"))
    assert found.amax[first] == read_ranges(outs["mse"]).amax[first]
    assert {name: found.amax[name] for name in others} == {
        name: read_ranges(outs["minmax"]).amax[name] for name in others
    }
