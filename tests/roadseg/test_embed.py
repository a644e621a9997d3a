import base64
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from roadseg import embed
from roadseg.embed import embed_differences, embed_frame, embed_labels, embed_video, mark_differences, paint
from roadseg.runtime import ArtifactError, LabelSet

COLOURS = LabelSet("two", ("road", "sky"), ((10, 20, 30), (40, 50, 60)))


def decode(uri):
    """What a data URI of a picture shows, in OpenCV's order of channels."""
    data = base64.b64decode(uri.partition(",")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def random_labels(seed, shape=(40, 50)):
    return np.random.default_rng(seed).integers(0, 2, shape, np.uint8)


def test_exactly_the_differing_pixels_are_marked():
    reference = np.array([[0, 0, 255], [1, 1, 1]], np.uint8)
    candidate = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    marked = mark_differences(reference, candidate)
    assert marked[..., 3].tolist() == [[0, 255, 255], [0, 0, 255]]
    assert {tuple(rgb) for rgb in marked[marked[..., 3] > 0][:, :3]} == {embed.DIFFERENT}


def test_the_embedded_difference_map_is_the_marked_one():
    first, second = random_labels(0), random_labels(1)
    np.testing.assert_array_equal(decode(embed_differences(first, second))[..., 3] == 255, first != second)


def test_a_difference_stays_visible_when_the_map_is_shrunk():
    first = np.zeros((8, 2 * embed.MAX_WIDTH), np.uint8)
    second = first.copy()
    second[4, 100] = 1
    shrunk = decode(embed_differences(first, second))
    assert shrunk.shape == (4, embed.MAX_WIDTH, 4)
    assert np.argwhere(shrunk[..., 3]).tolist() == [[2, 50]]
    assert shrunk[2, 50].tolist() == [*reversed(embed.DIFFERENT), 64]  # one of four pixels


def test_labels_have_the_colours_of_their_classes_and_are_transparent_where_ignored():
    painted = paint(np.array([[0, 1, 255]], np.uint8), COLOURS)
    assert painted.tolist() == [[[10, 20, 30, 255], [40, 50, 60, 255], [0, 0, 0, 0]]]


def test_embedded_labels_are_the_painted_ones():
    labels = random_labels(0)
    shown = cv2.cvtColor(decode(embed_labels(labels, COLOURS)), cv2.COLOR_BGRA2RGBA)
    np.testing.assert_array_equal(shown, paint(labels, COLOURS))


def test_a_frame_keeps_its_colours_and_its_proportions():
    frame = np.full((360, 1280, 3), (200, 60, 20), np.uint8)
    shown = decode(embed_frame(frame))
    assert shown.shape == (180, 640, 3)
    np.testing.assert_allclose(shown[90, 320], (20, 60, 200), atol=3)


def test_a_small_video_is_embedded_whole(tmp_path):
    (tmp_path / "drive.mp4").write_bytes(b"moving pictures")
    kind, _, data = embed_video(tmp_path / "drive.mp4").partition(",")
    assert kind == "data:video/mp4;base64"
    assert base64.b64decode(data) == b"moving pictures"


def test_a_large_video_is_linked_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "MAX_VIDEO_BYTES", 3)
    (tmp_path / "a drive.mp4").write_bytes(b"long")
    link = embed_video(tmp_path / "a drive.mp4")
    assert (link, unquote(link)) == ("a%20drive.mp4", "a drive.mp4")


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"drive\.mp4 cannot be read"):
        embed_video(tmp_path / "drive.mp4")
