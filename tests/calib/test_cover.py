import dataclasses

import numpy as np

from roadseg.calib import calibrate
from roadseg.calib.cover import cover
from roadseg.runtime import Key, LabelSet, Sample

THREE = LabelSet("three", ("road", "sky", "bus"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


@dataclasses.dataclass
class Drives:
    """Frames of 8x8 of several drives; labels are the rows of `labels`, one list for each frame."""

    groups: str
    """A letter for each frame."""
    labels: list[list[int] | None]
    name: str = "folder:/data/drives"
    split: str = "train"
    label_set: LabelSet = THREE

    def __post_init__(self):
        self.read = []

    @property
    def keys(self):
        return tuple(Key(str(i), group) for i, group in enumerate(self.groups))

    def __len__(self):
        return len(self.groups)

    def __getitem__(self, index):
        self.read.append(index)
        labels = None if self.labels[index] is None else np.resize(np.array(self.labels[index], np.uint8), (8, 8))
        rng = np.random.default_rng(index)
        return Sample(self.keys[index], rng.integers(0, 256, (8, 8, 3), np.uint8), labels)


def test_images_that_show_every_class_stay_and_no_other_is_looked_at():
    drives = Drives("aaaa", [[0, 1], [2], [0], [1]])
    assert cover(drives, (0, 1), seed=0) == (0, 1)
    assert drives.read == [0, 1]


def test_an_image_of_the_same_group_goes_for_one_with_a_class_that_was_missing():
    drives = Drives("aabb", [[0, 1], [0, 1], [0, 1], [0, 2]])
    assert cover(drives, (0, 1, 2), seed=0) == (0, 1, 3)


def test_an_image_that_alone_shows_a_class_does_not_go():
    drives = Drives("aaaa", [[0], [1], [0, 1], [0, 2]])
    # Either 0 or 1 could go but for the other's sake; of 0, 1 and 2 only one is left that shows nothing alone.
    assert set(cover(drives, (0, 1, 2), seed=0)) in ({1, 2, 3}, {0, 2, 3}, {0, 1, 3})
    assert cover(drives, (0, 1), seed=0) in ((0, 1), (1, 3))  # 3 shows what 0 does


def test_no_group_is_left_without_an_image():
    drives = Drives("abc", [[0, 1], [0, 1], [2]])
    assert cover(drives, (0, 1), seed=0) == (0, 1)


def test_a_class_that_nobody_shows_changes_nothing():
    assert cover(Drives("aaa", [[0, 1], [0], [1]]), (0, 1), seed=0) == (0, 1)


def test_what_has_no_labels_stays_as_it_is():
    drives = Drives("aaa", [None, None, None])
    assert cover(drives, (0, 2), seed=0) == (0, 2)
    assert drives.read == [0]


def test_unlabelled_pixels_are_no_class():
    drives = Drives("aaa", [[0, 255], [0, 1], [2, 255]])
    assert cover(drives, (0, 1), seed=0) == (1, 2)


def test_calibration_takes_the_image_with_the_rare_class(small, tmp_path):
    labels = [[0, 1]] * 40
    labels[17] = [0, 2]
    report = calibrate(small, Drives("a" * 40, labels), out=tmp_path / "ranges", count=3)
    assert report.images == 3
    assert report.coverage.classes["bus"] == round(32 / 192, 6)
    assert not any("bus" in warning for warning in report.coverage.warnings)
