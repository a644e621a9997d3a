"""Pixels before and after a model."""

import dataclasses

import numpy as np
import pytest

from roadseg.runtime import ModelSpec, SpecError
from roadseg.runtime.pixels import PADDING, classify, fit, fit_labels, inner_size, normalise, unfit

STRETCH = ModelSpec("tiny", height=40, width=60, classes=("road", "sky"))
LETTERBOX = dataclasses.replace(STRETCH, resize="letterbox")


@pytest.fixture(autouse=True)
def cv2():
    return pytest.importorskip("cv2", reason="needs the extra train")


def noise(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


def test_normalising_is_that_of_the_paper_pixel_by_pixel():
    spec = ModelSpec("tiny", height=1, width=2)
    frames = np.array([[[[255, 0, 51], [0, 255, 102]]]], np.uint8)
    images = normalise(frames, spec)
    # ImageNet's mean and std, e.g. https://pytorch.org/vision/stable/models.html
    assert images.shape == (1, 3, 1, 2)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[0, 0, 0], [(1 - 0.485) / 0.229, -0.485 / 0.229], atol=1e-6)
    np.testing.assert_allclose(images[0, 1, 0], [-0.456 / 0.224, (1 - 0.456) / 0.224], atol=1e-6)
    np.testing.assert_allclose(images[0, 2, 0], [(0.2 - 0.406) / 0.225, (0.4 - 0.406) / 0.225], atol=1e-6)


def test_bgr_turns_the_frame_and_not_the_mean():
    spec = ModelSpec("tiny", height=1, width=1, channels="bgr", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 0.5))
    images = normalise(np.array([[[[255, 51, 0]]]], np.uint8), spec)
    np.testing.assert_allclose(images.ravel(), [0 - 0.1, 0.2 - 0.2, (1 - 0.3) / 0.5], atol=1e-6)


def test_the_lowest_of_equal_classes_is_the_answer():
    logits = np.array([[1, 5], [3, 5], [3, 2]], np.float32).reshape(1, 3, 1, 2)
    assert classify(logits).tolist() == [[[1, 0]]]
    assert classify(logits).dtype == np.uint8


@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
def test_a_frame_of_the_right_size_is_left_alone(spec):
    frame = noise(40, 60)
    assert fit(frame, spec) is frame
    labels = frame[..., 0]
    assert unfit(labels, spec, (40, 60)) is labels


def test_stretching_fills_the_frame_without_padding():
    fitted = fit(np.full((10, 90, 3), 200, np.uint8), STRETCH)
    assert fitted.shape == (40, 60, 3)
    assert (fitted == 200).all()


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((20, 60), (10, 30), (0, 60)),  # bars above and below
        ((80, 60), (0, 40), (15, 45)),  # bars left and right
        ((4, 12), (10, 30), (0, 60)),  # enlarged
        ((21, 60), (9, 30), (0, 60)),  # an odd bar: 9 above, 10 below
    ],
)
def test_letterboxing_keeps_the_shape_between_grey_bars(size, rows, columns):
    fitted = fit(np.full((*size, 3), 200, np.uint8), LETTERBOX)
    inside = np.zeros((40, 60), bool)
    inside[slice(*rows), slice(*columns)] = True
    assert (fitted[inside] == 200).all()
    assert (fitted[~inside] == PADDING).all()


def test_a_sliver_keeps_one_pixel():
    assert inner_size((1, 10_000), LETTERBOX) == (1, 60)
    assert fit(noise(1, 10_000), LETTERBOX).shape == (40, 60, 3)


@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
@pytest.mark.parametrize("size", [(40, 60), (80, 120), (20, 30), (7, 11), (100, 33), (1, 300)])
def test_the_inner_frame_lies_in_the_middle_and_fits(spec, size):
    rows, columns = inner_size(size, spec)
    assert 1 <= rows <= 40
    assert 1 <= columns <= 60
    assert spec is LETTERBOX or (rows, columns) == (40, 60)
    assert spec is STRETCH or rows == 40 or columns == 60


def blocks(spec, factor):
    """Labels of `factor` x `factor` pixels each, as many as fill what a model sees of a frame."""
    labels = np.random.default_rng(1).integers(0, 2, (20, 60) if spec is LETTERBOX else (40, 60)).astype(np.uint8)
    return labels.repeat(factor, axis=0).repeat(factor, axis=1)


@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_labels_come_back_where_they_were(spec, factor):
    # Blocks become one pixel and blocks again.
    labels = blocks(spec, factor)
    fitted = fit(np.stack([labels] * 3, axis=-1), spec)[..., 0]
    back = unfit(fitted, spec, labels.shape)
    np.testing.assert_array_equal(back, labels)
    assert back.flags.c_contiguous


# Powers of two, so that no centre falls between two of 40 x 60 pixels, where either is the nearest.
@pytest.mark.parametrize("size", [(16, 8), (32, 128), (512, 64)])
def test_labels_are_taken_from_the_nearest_pixel(size, cv2):
    labels = np.random.default_rng(2).integers(0, 19, STRETCH.size).astype(np.uint8)
    expected = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(unfit(labels, STRETCH, size), expected)


@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_labels_go_where_their_pixels_go(spec, factor):
    labels = blocks(spec, factor)
    expected = fit(np.stack([labels] * 3, axis=-1), spec)[..., 0]
    np.testing.assert_array_equal(fit_labels(labels, spec), np.where(expected == PADDING, 255, expected))


def test_bars_never_come_back():
    labels = np.full((40, 60), 9, np.uint8)
    labels[10:30] = 1
    assert (unfit(labels, LETTERBOX, (200, 600)) == 1).all()


def test_shrinking_averages_and_does_not_skip():
    stripes = np.zeros((80, 120, 3), np.uint8)
    stripes[::2] = 200
    assert (fit(stripes, STRETCH) == 100).all()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((40, 60, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_refused_before_it_is_resized(frame):
    with pytest.raises(SpecError, match=r"tiny takes a frame of shape \(rows, columns, 3\) and type uint8"):
        fit(frame, STRETCH)
