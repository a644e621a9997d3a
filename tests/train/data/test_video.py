from fractions import Fraction

import numpy as np
import pytest

from roadseg.calib import choose
from roadseg.runtime import DataError
from roadseg.runtime.video import VideoWriter
from roadseg.train import open_data
from roadseg.train.data import open_video

pytest.importorskip("av")


@pytest.fixture
def clip(tmp_path):
    """A function that writes a grey clip of 4 frames per second, brighter by 4 with each of them."""

    def write(name="drive.mp4", frames=50):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with VideoWriter(path, Fraction(4)) as writer:
            for i in range(frames):
                writer.write(np.full((32, 48, 3), 20 + 4 * i, np.uint8))
        return path

    return write


def number_of(frame):
    return round((float(frame.mean()) - 20) / 4)


def test_a_frame_is_taken_every_half_second(clip):
    data = open_data(f"video:{clip()}", "train")
    assert len(data) == 25
    assert [number_of(sample.frame) for sample in data] == list(range(0, 50, 2))
    assert data[3].key.name == "drive_000006"
    assert data[3].labels is None


def test_frames_can_be_asked_for_in_any_order(clip):
    data = open_video(clip(), "train")
    assert [number_of(data[i].frame) for i in (5, 9, 9, 2, 24, 0)] == [10, 18, 18, 4, 48, 0]


def test_ten_seconds_are_a_group_and_none_is_left_out(clip):
    data = open_video(clip(), "train")
    assert [key.group for key in data.keys] == ["drive 0"] * 20 + ["drive 1"] * 5
    assert {data.keys[i].group for i in choose(data, 2, seed=0)} == {"drive 0", "drive 1"}


def test_a_folder_gives_the_frames_of_all_its_videos(clip, tmp_path):
    clip("train/a.mp4", 4)
    clip("train/b.mkv", 4)
    (tmp_path / "train" / "notes.txt").write_text("sunny")
    data = open_video(tmp_path, "train")
    assert [key.name for key in data.keys] == ["a_000000", "a_000002", "b_000000", "b_000002"]
    assert [number_of(sample.frame) for sample in data] == [0, 2, 0, 2]


def test_what_holds_no_video_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.mp4"):
        with pytest.raises(DataError, match=r"there is no video at .*; it takes a file, or a folder with"):
            open_video(path, "train")


def test_videos_of_one_name_are_refused(clip, tmp_path):
    clip("drives/a.mp4", 4)
    clip("drives/a.mkv", 4)
    with pytest.raises(DataError, match="two videos 'a' that differ in their suffix"):
        open_video(tmp_path / "drives", "train")


def test_a_video_that_was_cut_short_is_refused_where_it_ends(clip):
    path = clip()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError):
        list(open_video(path, "train"))


def test_a_changed_file_has_another_fingerprint(clip):
    before = open_video(clip(frames=4), "train").fingerprint
    assert open_video(clip(frames=8), "train").fingerprint != before


def test_the_dash_cam_gives_frames_of_every_second(shared_data):
    data = open_video(shared_data / "video", "train")
    assert len({key.group for key in data.keys}) >= 2
    first = data[0].frame
    assert (first.dtype, first.ndim, first.shape[2]) == (np.uint8, 3, 3)
    assert not np.array_equal(first, data[1].frame)
