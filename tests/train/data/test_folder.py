import cv2
import numpy as np
import pytest

from roadseg.runtime import CITYSCAPES, DataError, UsageError
from roadseg.train.data import open_data, open_folder


def write(path, value, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6, channels) if channels == 3 else (4, 6), value, np.uint8))


def test_images_alone_are_frames_without_labels(tmp_path):
    write(tmp_path / "b.png", 2)
    write(tmp_path / "a.jpg", 1)
    data = open_folder(tmp_path, "train")
    assert [key.name for key in data.keys] == ["a", "b"]
    assert data[0].labels is None
    assert data.label_set == CITYSCAPES


def test_a_split_folder_with_classes_of_its_own(tmp_path):
    write(tmp_path / "val" / "images" / "a.png", 9)
    write(tmp_path / "val" / "labels" / "a.png", 1, channels=1)
    (tmp_path / "classes.txt").write_text("grass\ncow\n")
    data = open_folder(tmp_path, "val")
    assert data.label_set.classes == ("grass", "cow")
    assert (data[0].labels == 1).all()


def test_a_frame_that_lacks_labels_others_have_is_named(tmp_path):
    for name in "ab":
        write(tmp_path / "images" / f"{name}.png", 0)
    write(tmp_path / "labels" / "a.png", 0, channels=1)
    with pytest.raises(DataError, match=r"b\.png has no labels"):
        open_folder(tmp_path, "train")


@pytest.mark.parametrize("text", ["kitti:/x", "camvid", "camvid:", ""])
def test_data_that_is_not_kind_and_path_is_a_usage_error(text):
    with pytest.raises(UsageError, match="kind:path with kind one of camvid, cityscapes, folder, scenes"):
        open_data(text, "val")
