import dataclasses

import numpy as np
import pytest

from roadseg.calib.survey import mean_luma, survey
from roadseg.runtime import CalibrationError, Key, LabelSet, Sample

TWO = LabelSet("two", ("road", "sky"), ((0, 0, 0), (1, 1, 1)))


@dataclasses.dataclass
class Drive:
    """Grey frames of given brightness, labelled where labels are given."""

    greys: list[int]
    labels: list[list[int]] | None = None
    name: str = "folder:/data/drive"
    split: str = "train"
    label_set: LabelSet = TWO

    def __getitem__(self, index):
        labels = None if self.labels is None else np.array([self.labels[index]], np.uint8)
        return Sample(Key(f"{index}", "noon"), np.full((2, 3, 3), self.greys[index], np.uint8), labels)


def coverage(drive):
    return survey(drive, range(len(drive.greys)))[1]


def test_quartiles_of_brightness_are_told():
    # 51 is a fifth of 255: from 0.0 to 0.8.
    assert coverage(Drive([102, 0, 204, 51, 153])).brightness == (0.0, 0.2, 0.4, 0.6, 0.8)


def test_green_is_brighter_than_red_and_red_than_blue():
    frame = np.zeros((1, 1, 3), np.uint8)
    lumas = []
    for channel in range(3):
        frame[:] = 0
        frame[..., channel] = 255
        lumas.append(mean_luma(frame))
    assert lumas == [0.299, 0.587, 0.114]


def test_class_shares_leave_unlabelled_pixels_out():
    assert coverage(Drive([0, 90], [[0, 0, 1, 255], [0, 255, 255, 255]])).classes == {"road": 0.75, "sky": 0.25}


def test_a_class_that_no_image_shows_is_named():
    found = coverage(Drive([10, 200], [[0, 0], [0, 255]]))
    assert found.classes == {"road": 1.0, "sky": 0.0}
    assert found.warnings == ("No image shows sky.",)


def test_images_without_any_label_lack_every_class():
    assert coverage(Drive([10, 200], [[255], [255]])).warnings == ("No image shows road, sky.",)


def test_a_data_set_without_labels_tells_nothing_of_classes():
    found = coverage(Drive([10, 200]))
    assert (found.classes, found.warnings) == (None, ())


def test_a_set_without_night_or_without_day_is_warned_about():
    (night,) = coverage(Drive([102, 140, 153])).warnings
    assert night.startswith("No image is as dark as at night (the darkest has 0.40 of full brightness)")
    (day,) = coverage(Drive([5, 10, 51])).warnings
    assert day.startswith("No image is as bright as by day (the brightest has 0.20 of full brightness)")


def test_a_fifth_of_copies_is_refused_by_name():
    with pytest.raises(
        CalibrationError, match=r"folder:/data/drive: 2 of 10 .* noon/8 is noon/0, noon/9 is noon/1\. Rem"
    ):
        survey(Drive([*range(0, 160, 20), 0, 20]), range(10))


def test_one_copy_in_twenty_is_warned_about():
    (warning,) = coverage(Drive([*range(0, 190, 10), 0])).warnings
    assert warning == "Copies count twice: noon/19 is noon/0."
