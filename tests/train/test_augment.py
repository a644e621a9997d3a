import cv2
import numpy as np
import pytest

from roadseg.train.augment import Augmentation, crop_scaled


def coordinates(rows, columns):
    """A frame whose red and green are its row and column, and labels that say the same of a coarse grid."""
    y, x = np.mgrid[:rows, :columns]
    frame = np.stack([y, x, np.zeros_like(x)], axis=2).astype(np.uint8)
    return frame, (y // 16 * 8 + x // 16).astype(np.uint8)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.0, 1.7, 2.0])
def test_frame_and_labels_are_cut_at_the_same_place(factor):
    frame, labels = coordinates(96, 128)
    reach = 1 / factor + 1  # interpolation mixes neighbours this far away, in pixels of the frame
    for seed in range(10):
        cut, ids = crop_scaled(frame, labels, factor, (40, 56), np.random.default_rng(seed))
        assert cut.shape == (40, 56, 3)
        assert ids.shape == (40, 56)
        # Where the frame meets the padding, interpolation mixes the two.
        inside = cv2.erode((ids != 255).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        for coordinate, cell in ((cut[..., 0], ids // 8), (cut[..., 1], ids % 8)):
            near = (coordinate >= 16.0 * cell - reach) & (coordinate <= 16.0 * cell + 15 + reach)
            assert near[inside].all()


def test_a_crop_larger_than_the_frame_is_padded_with_ignored_pixels():
    frame, labels = coordinates(32, 32)
    cut, ids = crop_scaled(frame, labels, 0.5, (32, 32), np.random.default_rng(1))
    assert (ids == 255).mean() == pytest.approx(0.75)
    assert (cut[ids == 255] == 127).all(axis=1).mean() > 0.9  # all but the seam, which blends


def test_the_same_generator_gives_the_same_sample():
    augmentation = Augmentation((24, 24))
    first, second, other = (augmentation(*coordinates(48, 64), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert (first[0] != other[0]).any()


def test_a_mirror_turns_frame_and_labels_around():
    frame, labels = coordinates(32, 32)
    plain = Augmentation((32, 32), scale=(1, 1), flip=1, brightness=0, contrast=0, saturation=0)
    mirrored, ids = plain(frame, labels, np.random.default_rng(0))
    assert (mirrored == frame[:, ::-1]).all()
    assert (ids == labels[:, ::-1]).all()
