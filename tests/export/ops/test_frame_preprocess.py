import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import FRAME_PREPROCESS
from roadseg.export.ops.frame_preprocess import arguments_for
from roadseg.runtime import ModelSpec, UsageError
from roadseg.runtime.backends.torch import Normalise
from roadseg.runtime.pixels import PADDING, fit

SPEC = ModelSpec("tiny", height=6, width=8, classes=("road", "sky"))


def noise(n, rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, rows, columns, 3), dtype=torch.uint8, generator=generator)


@st.composite
def calls(draw):
    """Parts of frames, resized or not, in canvases that they fill or do not, at words or between them."""
    resized = draw(st.booleans())
    unit = 1 if resized else draw(st.sampled_from([1, 4]))
    n, width, top, left = (draw(st.integers(*ends)) for ends in ((1, 4), (1, 5), (0, 1), (0, 2)))
    height = draw(st.integers(1, 3 if resized else 2))
    rows, columns = top + height + draw(st.integers(0, 1)), left + width + draw(st.integers(0, 2))
    size = (draw(st.integers(1, 2)), draw(st.integers(1, 9))) if resized else (height, width)
    corner = draw(st.integers(0, 1)), draw(st.integers(0, 2))
    canvas = corner[0] + size[0] + draw(st.integers(0, 1)), corner[1] + size[1] + draw(st.integers(0, 2))
    spec = dataclasses.replace(
        SPEC,
        channels=draw(st.sampled_from(["rgb", "bgr"])),
        mean=tuple(draw(st.floats(0, 1)) for _ in range(3)),
        std=tuple(draw(st.floats(0.2, 1)) for _ in range(3)),
    )
    arguments = arguments_for(spec, (rows, columns), "stretch", half=draw(st.booleans()))._replace(
        crop=[top, unit * left, height, unit * width],
        size=[size[0], unit * size[1]],
        canvas=[canvas[0], unit * canvas[1]],
        corner=[corner[0], unit * corner[1]],
        fill=[draw(st.integers(0, 255)) for _ in range(3)],
    )
    return noise(n, rows, unit * columns, draw(st.integers(0, 2**31))), *arguments


@settings(max_examples=200, deadline=None, derandomize=True)
@given(calls())
def test_all_faces_give_the_same_images(answer_of_function, call):
    expected = FRAME_PREPROCESS(*call)
    _, _, _, crop, size, *_, half = call
    assert expected.dtype == (torch.float16 if half else torch.float32)
    assert torch.equal(FRAME_PREPROCESS.kernel(*call), expected)
    answer = answer_of_function(FRAME_PREPROCESS, *call)
    assert answer.dtype == expected.dtype
    if crop[2:] == size:
        assert torch.equal(answer, expected)
    # Where a picture is resized, places between pixels are rounded: these few pixels keep that small.
    assert (answer - expected).abs().max() <= (2e-3 if half else 2e-6) * expected.abs().max()


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("columns", [8, 7])
def test_frames_of_the_models_own_size_are_to_the_bit_what_normalise_gives(answer_of_function, channels, columns):
    spec = dataclasses.replace(SPEC, width=columns, channels=channels)
    call = noise(2, *spec.size), *arguments_for(spec, spec.size, "letterbox")
    expected = Normalise(spec)(call[0])
    assert torch.equal(FRAME_PREPROCESS(*call), expected)
    assert torch.equal(FRAME_PREPROCESS.kernel(*call), expected)
    assert torch.equal(answer_of_function(FRAME_PREPROCESS, *call), expected)


def plain(frame_size, **changes):
    """Arguments that leave values as they are, for frames and answers of one size but for the changes."""
    spec = ModelSpec("plain", *frame_size, mean=(0, 0, 0), std=(1 / 255,) * 3)
    return arguments_for(spec, frame_size, "stretch")._replace(**changes)


def test_pixels_are_mixed_by_the_distance_of_their_centres():
    frames = torch.tensor([[[[0, 10, 200], [100, 10, 0]]]], dtype=torch.uint8)
    images = FRAME_PREPROCESS(frames, *plain((1, 2), size=[1, 4], canvas=[1, 4]))
    assert images[0, :, 0].tolist() == [[0, 25, 75, 100], [10, 10, 10, 10], [200, 150, 50, 0]]


def test_the_part_lies_where_it_was_pasted_and_the_rest_has_the_fill_colour():
    frames = torch.arange(36, dtype=torch.uint8).reshape(1, 3, 4, 3)
    arguments = plain(
        (3, 4), crop=[1, 2, 2, 1], size=[2, 1], canvas=[3, 3], corner=[1, 1], fill=[7, 8, 9], bgr=True
    )
    blue, green, red = FRAME_PREPROCESS(frames, *arguments)[0].tolist()
    assert red == [[7, 7, 7], [7, 18, 7], [7, 30, 7]]
    assert green == [[8, 8, 8], [8, 19, 8], [8, 31, 8]]
    assert blue == [[9, 9, 9], [9, 20, 9], [9, 32, 9]]


def test_images_are_those_of_pytorchs_interpolation():
    spec = ModelSpec("small", 30, 41)
    frames = noise(2, 20, 24)
    images = FRAME_PREPROCESS(frames, *arguments_for(spec, (20, 24), "stretch"))
    resized = F.interpolate(frames.permute(0, 3, 1, 2).double(), spec.size, mode="bilinear")
    expected = Normalise(spec)(resized.permute(0, 2, 3, 1))
    assert torch.allclose(images, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 3), (3, 7), (2, 2)])
def test_letterboxed_frames_are_those_that_the_runtime_fits(size):
    spec = ModelSpec("tall", 9, 12, mean=(0, 0, 0), std=(1 / 255,) * 3, resize="letterbox")
    black, noisy = frames = torch.cat([torch.zeros_like(noise(1, *size)), noise(1, *size)])
    images = FRAME_PREPROCESS(frames, *arguments_for(spec, size, "letterbox")).permute(0, 2, 3, 1).numpy()
    bars = fit(black.numpy(), spec)
    assert np.array_equal(images[0], bars)
    assert set(np.unique(bars)) == {0, PADDING}
    # OpenCV rounds to whole levels, by weights of 11 bits.
    assert np.abs(images[1] - fit(noisy.numpy(), spec)).max() < 1


def test_cropping_keeps_the_middle_in_the_models_proportions():
    wide, tall = ((720, 1280), (1280, 720))
    assert arguments_for(ModelSpec("square", 512, 512), wide, "crop").crop == [0, 280, 720, 720]
    assert arguments_for(ModelSpec("square", 512, 512), tall, "crop").crop == [280, 0, 720, 720]
    assert arguments_for(ModelSpec("flat", 512, 1024), wide, "crop").crop == [40, 0, 640, 1280]


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "crop"])
def test_every_rule_leaves_a_frame_of_the_models_size_as_it_is(rule):
    assert arguments_for(SPEC, SPEC.size, rule) == arguments_for(SPEC, SPEC.size, "stretch")
    assert arguments_for(SPEC, SPEC.size, rule)[2:6] == ([0, 0, 6, 8], [6, 8], [6, 8], [0, 0])


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="stretch, letterbox or crop, not by 'zoom'"):
        arguments_for(SPEC, (4, 4), "zoom")


@pytest.mark.parametrize("compute", [FRAME_PREPROCESS, FRAME_PREPROCESS.kernel])
def test_a_part_that_leaves_the_frame_or_the_canvas_is_refused(compute):
    frames = noise(1, 6, 8)
    with pytest.raises(
        UsageError, match=r"begins at \(0, 1\) and has 6x8 pixels; it does not lie in frames of 6x8"
    ):
        compute(frames, *plain((6, 8), crop=[0, 1, 6, 8]))
    with pytest.raises(UsageError, match=r"does not lie in a canvas of 6x8"):
        compute(frames, *plain((6, 8), corner=[1, 0]))


@pytest.mark.parametrize("columns", [2000, 2001])
@pytest.mark.parametrize("half", [False, True])
def test_a_row_of_more_pixels_than_a_block(columns, half):
    spec = ModelSpec("wide", 1, columns, channels="bgr")
    call = noise(1, 1, columns), *arguments_for(spec, spec.size, "stretch", half)
    assert torch.equal(FRAME_PREPROCESS.kernel(*call), FRAME_PREPROCESS(*call))


def test_a_resized_row_of_more_pixels_than_a_block():
    call = noise(1, 2, 100), *arguments_for(ModelSpec("wide", 1, 600), (2, 100), "stretch")
    assert torch.equal(FRAME_PREPROCESS.kernel(*call), FRAME_PREPROCESS(*call))


def test_words_are_read_only_where_frames_begin_at_one():
    frames = noise(1, 6, 8)
    arguments = plain((6, 8))
    shifted = torch.cat([torch.zeros(1, dtype=torch.uint8), frames.flatten()])[1:].view_as(frames)
    packed = [FRAME_PREPROCESS.kernel.call_for(f, *arguments).constants["packed"] for f in (frames, shifted)]
    assert packed == [True, False]
    assert torch.equal(FRAME_PREPROCESS.kernel(shifted, *arguments), FRAME_PREPROCESS.kernel(frames, *arguments))


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "crop"])
def test_pytorch_finds_nothing_wrong_with_it(rule):
    torch.library.opcheck(FRAME_PREPROCESS.torch, (noise(2, 5, 7), *arguments_for(SPEC, (5, 7), rule, half=True)))


class Preprocess(nn.Module):
    """What stands in `Normalise`'s place: frames are shrunk, letterboxed and normalised."""

    def __init__(self, spec):
        super().__init__()
        self.arguments = arguments_for(spec.resized((32, 40)), spec.size, "letterbox")

    def forward(self, frames):
        return FRAME_PREPROCESS(frames, *self.arguments)


def test_a_network_that_begins_with_it_is_exported_and_built(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("roadseg.runtime.backends.torch.Normalise", Preprocess)
    monkeypatch.setattr("roadseg.export.check.Normalise", Preprocess)
    torch.manual_seed(0)
    spec = ModelSpec("begins", 48, 80, classes=("a", "b", "c"), channels="bgr")
    report = export(nn.Conv2d(3, 3, 3, stride=2, padding=1), spec, tmp_path / "m.onnx")
    assert report.nodes["FramePreprocess"] == 1
    assert report.agreement == 1
    assert report.messages == ()
    build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    assert (tmp_path / "m.plan").stat().st_size
