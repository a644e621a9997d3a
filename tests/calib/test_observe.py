import numpy as np
import pytest

from roadseg.calib import choose
from roadseg.calib.observe import Frames, observe
from roadseg.runtime import CalibrationError, ModelSpec


def model_of(graph, batch=1):
    return graph(
        f"""g (float[{batch},3,4,4] images) => (float[{batch},3,4,4] y) {{
            twice = Add(images, images)
            y = Mul(twice, twice)
        }}"""
    )


def test_every_frame_gives_the_tensors_asked_for(graph, scenes):
    spec = ModelSpec("plain", 4, 4, classes=("road", "sky"), io="tensor", mean=(0, 0, 0), std=(1, 1, 1))
    frames = Frames(scenes(4, 4, groups=(3,)), spec, 2, 0, False)
    seen = list(observe(model_of(graph), spec, ["y", "twice"], frames, "look"))
    assert len(seen) == len(frames) == 2
    for tensors, frame in zip(seen, frames, strict=True):
        pixels = frame.transpose(2, 0, 1)[None] / 255
        np.testing.assert_allclose(tensors["twice"], 2 * pixels, rtol=1e-5)
        np.testing.assert_allclose(tensors["y"], 4 * pixels**2, rtol=1e-5)


def test_a_frame_fills_a_fixed_batch(graph, scenes):
    spec = ModelSpec("plain", 4, 4, classes=("road", "sky"), io="tensor")
    (seen, *_) = observe(model_of(graph, batch=2), spec, ["y"], Frames(scenes(4, 4), spec, 1, 0, False), "look")
    assert seen["y"].shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(seen["y"][0], seen["y"][1])


def test_they_are_the_frames_that_calibration_takes(scenes):
    dataset = scenes(16, 16)
    frames = Frames(dataset, ModelSpec("plain", 4, 4, classes=("road", "sky")), 3, 5, False)
    assert frames.indices == choose(dataset, 3, 5)
    assert [image.name for image in frames.listed().images] == [dataset.keys[i].name for i in frames.indices]
    assert {frame.shape for frame in frames} == {(4, 4, 3)}


def test_frames_to_measure_on_are_refused(scenes):
    with pytest.raises(CalibrationError, match="there to measure accuracy"):
        Frames(scenes(split="val"), ModelSpec("plain", 8, 8, classes=("road", "sky")), 3, 0, False)
