import cv2
import numpy as np
import pytest

from roadseg.runtime import DataError, Key
from roadseg.train.data.images import read_labels, read_sample


def gradient(rows=32, columns=48):
    y, x = np.mgrid[:rows, :columns]
    return np.stack([y * 7, x * 5, (x + y) * 3], axis=2).astype(np.uint8)


def test_a_colour_map_is_no_label_map(tmp_path):
    cv2.imwrite(str(tmp_path / "colour.png"), gradient())
    with pytest.raises(DataError, match="Is it a colour map"):
        read_labels(tmp_path / "colour.png")


def test_labels_of_another_size_are_refused_with_both_sizes(tmp_path):
    cv2.imwrite(str(tmp_path / "frame.png"), gradient(32, 48))
    cv2.imwrite(str(tmp_path / "labels.png"), np.zeros((16, 24), np.uint8))
    with pytest.raises(DataError, match=r"16x24 labels for a frame of 32x48"):
        read_sample(Key("a", ""), tmp_path / "frame.png", tmp_path / "labels.png")
