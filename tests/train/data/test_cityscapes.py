import cv2
import numpy as np
import pytest

from roadseg.runtime import DataError
from roadseg.train.data import open_cityscapes


@pytest.fixture
def cityscapes_root(tmp_path):
    for city in ("bonn", "aachen"):
        frames = tmp_path / "leftImg8bit" / "val" / city
        labels = tmp_path / "gtFine" / "val" / city
        frames.mkdir(parents=True)
        labels.mkdir(parents=True)
        name = f"{city}_000001_000019"
        cv2.imwrite(str(frames / f"{name}_leftImg8bit.png"), np.zeros((4, 8, 3), np.uint8))
        ids = np.array([[7, 8, 11, 33, 0, 4, 26, 255]] * 4, np.uint8)
        cv2.imwrite(str(labels / f"{name}_gtFine_labelIds.png"), ids)
    return tmp_path


def test_label_ids_become_train_ids_and_the_group_is_the_city(cityscapes_root):
    data = open_cityscapes(cityscapes_root, "val")
    assert [key.group for key in data.keys] == ["aachen", "bonn"]
    assert data[1].labels[0].tolist() == [0, 1, 2, 18, 255, 255, 13, 255]


def test_a_missing_label_file_is_named(cityscapes_root):
    (cityscapes_root / "gtFine" / "val" / "bonn" / "bonn_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"bonn_000001_000019_gtFine_labelIds\.png is missing"):
        open_cityscapes(cityscapes_root, "val")


def test_the_wrong_folder_is_explained(tmp_path):
    with pytest.raises(DataError, match="Give the folder above leftImg8bit"):
        open_cityscapes(tmp_path, "val")


def test_real_frames_have_road_at_the_bottom(shared_data):
    data = open_cityscapes(shared_data / "cityscapes", "train")
    sample = data[0]
    assert sample.frame.shape == (1024, 2048, 3)
    assert (sample.labels == 0).mean() > 0.1
