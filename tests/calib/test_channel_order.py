import dataclasses

import numpy as np
import pytest

from roadseg.calib import calibrate
from roadseg.calib.channel_order import mean_sureness, measure_sureness, prefers_swapped
from roadseg.runtime import CalibrationError, ModelSpec
from roadseg.runtime.onnxfile import load_onnx, onnx_spec

NINE = (9,)


def swapped(frames):
    """The same data set with red and blue swapped."""
    return dataclasses.replace(frames, frames=tuple(np.ascontiguousarray(f[..., ::-1]) for f in frames.frames))


@pytest.fixture(scope="module")
def reddish(scenes):
    """Frames of which red is bright and blue is dark."""
    frames = scenes(groups=NINE)
    tinted = tuple((f // 4 + np.array([180, 90, 0])).astype(np.uint8) for f in frames.frames)
    return dataclasses.replace(frames, frames=tinted)


@pytest.fixture
def red_or_not(graph, save, tmp_path):
    """A network of two classes, whose logits differ by four times red less blue where red is more, 0 elsewhere."""

    def make(channels="rgb", tail="best = ArgMax<axis=1, keepdims=0>(logits) labels = Cast<to=2>(best)"):
        order = (1, 0, -1) if channels == "rgb" else (-1, 0, 1)
        model = graph(
            f"""g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {{
                bytes = Cast<to=1>(frames)
                images = Transpose<perm=[0,3,1,2]>(bytes)
                pixels = Mul(images, unit)
                redness = Conv(pixels, w1)
                active = Relu(redness)
                logits = Conv(active, w2)
                {tail}
            }}""",
            unit=np.array(1 / 255, np.float32),
            w1=np.array(order, np.float32).reshape(1, 3, 1, 1),
            w2=np.array([4, 0], np.float32).reshape(2, 1, 1, 1),
        )
        spec = ModelSpec("red", 8, 8, classes=("red", "other"), channels=channels)
        return save(tmp_path / f"{channels}.onnx", model, spec)

    return make


def test_how_sure_a_network_is_by_hand(red_or_not):
    # Red 255 and blue 0: logits 4 and 0, softmax 1 / (1 + e^-4). Swapped: both 0, a half.
    model = load_onnx(red_or_not())
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[..., 0] = 255
    told = measure_sureness(model, onnx_spec(model, "m"), "logits", [frame])
    np.testing.assert_allclose(told, [[1 / (1 + np.exp(-4)), 0.5]], rtol=1e-6)


def test_equal_logits_are_as_sure_as_chance():
    assert mean_sureness(np.zeros((11, 4, 5), np.float32)) == pytest.approx(1 / 11)


def test_bgr_frames_are_refused_by_the_name_of_their_data_set(red_or_not, reddish, tmp_path):
    out = tmp_path / "m.ranges"
    with pytest.raises(
        CalibrationError, match=r"the frames of folder:.*drive look BGR where they have to be RGB: on"
    ):
        calibrate(red_or_not(), swapped(reddish), out=out)
    assert not out.exists()
    assert calibrate(red_or_not(), reddish, out=out).images == 9
    assert calibrate(red_or_not(), swapped(reddish), out=out, check_colours=False).images == 9


def test_so_is_a_model_whose_spec_names_the_wrong_order(red_or_not, reddish, tmp_path):
    # Frames are RGB everywhere; the graph of this one takes red for blue.
    with pytest.raises(CalibrationError, match=r'its spec is wrong to say channels = "bgr": export it with'):
        calibrate(red_or_not("bgr"), reddish, out=tmp_path / "m.ranges")


@pytest.mark.parametrize("look", [lambda f: np.repeat(f[..., :1], 3, axis=2), lambda f: f], ids=["grey", "smooth"])
def test_grey_frames_and_random_weights_pass(fastscnn, scenes, tmp_path, look):
    frames = scenes(96, 128, groups=NINE)
    frames = dataclasses.replace(frames, frames=tuple(look(f) for f in frames.frames))
    for dataset in (frames, swapped(frames)):
        assert calibrate(fastscnn, dataset, out=tmp_path / "m.ranges", method="minmax").images == 9


def test_nothing_is_decided_on_few_frames(red_or_not, reddish, tmp_path):
    assert calibrate(red_or_not(), swapped(reddish), out=tmp_path / "m.ranges", count=7).images == 7


@pytest.mark.parametrize(
    ("gains", "refused"),
    [
        ([0.06] * 8, True),
        ([0.04] * 8, False),  # surer, but hardly
        ([0.4, 0.0, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0], False),  # on half of the frames
        ([0.9, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01], False),  # because of one of them
        ([-0.1] * 8, False),
        ([float("nan")] * 8, False),
    ],
)
def test_a_network_must_be_clearly_surer(gains, refused):
    assert prefers_swapped(np.array([[0.5, 0.5 + gain] for gain in gains])) is refused
