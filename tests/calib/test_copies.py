import cv2
import numpy as np
import pytest

from roadseg.calib.choose import Image
from roadseg.calib.copies import find_copies, name_copies, thumbnail


def image(name, pixels="", group="drive"):
    return Image(name, group, pixels or name)


@pytest.fixture
def frames(scenes):
    """Different frames of 96x128."""
    return scenes(96, 128, groups=(6,)).frames


def as_jpeg(frame, quality):
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_images_of_one_name_in_two_groups_are_told_apart(frames):
    images = [image("7", "x", "a"), image("7", "x", "b"), image("7", "y", "c")]
    assert find_copies(images, [thumbnail(f) for f in (frames[0], frames[0], frames[1])]) == {"b/7": "a/7"}


@pytest.mark.parametrize("quality", [95, 85, 75])
def test_a_frame_saved_as_jpeg_is_a_copy_of_itself(frames, quality):
    again = [*frames, as_jpeg(frames[2], quality)]
    images = [image(str(i)) for i in range(7)]
    assert find_copies(images, [thumbnail(f) for f in again]) == {"drive/6": "all but drive/2"}


@pytest.mark.parametrize("size", [(64, 48), (256, 192)])
def test_so_is_a_frame_of_another_size(frames, size):
    again = [*frames, cv2.resize(frames[4], size, interpolation=cv2.INTER_AREA)]
    images = [image(str(i)) for i in range(7)]
    assert find_copies(images, [thumbnail(f) for f in again]) == {"drive/6": "all but drive/4"}


def test_a_scene_in_which_one_thing_moved_is_none(frames):
    moved = frames[0].copy()
    moved[60:66, 64:72] = 255 - moved[60:66, 64:72]  # a cell of the thumbnail
    assert find_copies([image("0"), image("1")], [thumbnail(frames[0]), thumbnail(moved)]) == {}


def test_two_dark_frames_are_told_apart_by_their_mean():
    dark, darker = (np.full((32, 32, 3), grey, np.uint8) for grey in (6, 4))
    assert find_copies([image("0"), image("1")], [thumbnail(dark), thumbnail(darker)]) == {}


def test_an_error_names_no_more_than_ten():
    copies = {f"b{i}": f"a{i}" for i in range(13)}
    assert name_copies(copies).startswith("b0 is a0, b1 is a1")
    assert name_copies(copies).endswith("b9 is a9 and 3 more")
