import numpy as np
import pytest

from roadseg.runtime import DataError
from roadseg.train.data import open_camvid


def test_unlabelled_becomes_the_ignore_label(camvid_root):
    sample = open_camvid(camvid_root, "train")[0]
    assert (sample.labels[:, :2] == 255).all()
    assert set(np.unique(sample.labels)) == {0, 3, 8, 255}


def test_frames_are_grouped_by_drive(camvid_root):
    keys = open_camvid(camvid_root, "val").keys
    assert [(key.name, key.group) for key in keys] == [
        ("A_000", "A"),
        ("A_002", "A"),
        ("B_001", "B"),
        ("B_003", "B"),
    ]


def test_a_frame_without_labels_is_named(camvid_root):
    (camvid_root / "trainannot" / "B_003.png").unlink()
    with pytest.raises(DataError, match=r"B_003\.png has no labels"):
        open_camvid(camvid_root, "train")


def test_a_split_that_is_not_there_is_named(camvid_root):
    with pytest.raises(DataError, match="there are no images"):
        open_camvid(camvid_root, "test")


def test_the_real_camvid_has_367_and_101_frames_of_480x360(shared_data):
    train, val = (open_camvid(shared_data / "camvid", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    assert val[0].frame.shape == (360, 480, 3)
    assert {key.group for key in train.keys} == {"0001TP", "0006R0", "0016E5"}
