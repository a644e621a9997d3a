"""Every frame of a file is labelled, the newest of a stream, and what is damaged is refused."""

import os
import time
from fractions import Fraction

import numpy as np
import pytest

from roadseg.runtime import CAMVID, DataError, ModelSpec, Segmenter
from roadseg.runtime.video import LiveStream, VideoWriter, open_source, overlay, run

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")


class LeftIsRoad:
    """Labels the left half road and the right half sky."""

    name = "left is road"

    def __call__(self, frames):
        labels = np.zeros(frames.shape[:3], np.uint8)
        labels[:, :, frames.shape[2] // 2 :] = 1
        return labels


SEGMENTER = Segmenter(
    ModelSpec("halves", 32, 64, classes=("road", "sky"), palette=((255, 0, 0), (0, 0, 255))), LeftIsRoad()
)


def write_clip(path, frames=12, size=(48, 80)):
    """A grey clip that grows brighter."""
    with VideoWriter(path, Fraction(12)) as writer:
        for i in range(frames):
            writer.write(np.full((*size, 3), 40 + 10 * i, np.uint8))
    return path


def test_a_clip_comes_back_frame_by_frame(tmp_path):
    source = open_source(str(write_clip(tmp_path / "clip.mp4")))
    levels = [frame.mean() for frame in source]
    assert (source.count, source.fps) == (12, 12)
    assert levels == pytest.approx([40 + 10 * i for i in range(12)], abs=3)


def test_every_frame_of_a_file_is_labelled_and_painted(tmp_path):
    report = run(SEGMENTER, write_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4", blend=1.0)
    assert (report.frames, report.dropped) == (12, 0)
    assert 0 < report.p50_ms <= report.p90_ms <= report.p99_ms
    painted = list(open_source(str(tmp_path / "out.mp4")))
    assert len(painted) == 12
    assert painted[5].shape == (48, 80, 3)
    assert painted[5][24, 10].tolist() == pytest.approx([255, 0, 0], abs=12)
    assert painted[5][24, 70].tolist() == pytest.approx([0, 0, 255], abs=12)


def test_labelling_twice_gives_the_same_bytes(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    for name in ("a.mp4", "b.mp4"):
        run(SEGMENTER, clip, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot leave cores out")
def test_the_bytes_do_not_depend_on_the_number_of_cores(tmp_path):
    cores = os.sched_getaffinity(0)
    written = write_clip(tmp_path / "all.mp4", size=(288, 512)).read_bytes()
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert write_clip(tmp_path / "one.mp4", size=(288, 512)).read_bytes() == written
    finally:
        os.sched_setaffinity(0, cores)


def test_colours_are_those_that_players_assume_of_high_definition(tmp_path):
    green = np.full((720, 1280, 3), (0, 200, 0), np.uint8)
    with VideoWriter(tmp_path / "green.mp4", Fraction(12)) as writer:
        writer.write(green)
    with av.open(str(tmp_path / "green.mp4")) as container:
        picture = next(container.decode(video=0))
    assert (picture.colorspace, picture.color_range) == (1, 1)  # BT.709, limited range
    shown = picture.to_ndarray(format="rgb24", src_colorspace="ITU709")
    assert shown[360, 640].tolist() == pytest.approx([0, 200, 0], abs=3)


def test_an_odd_size_is_made_even(tmp_path):
    clip = write_clip(tmp_path / "odd.mp4", size=(33, 51))
    assert next(iter(open_source(str(clip)))).shape == (34, 52, 3)


def test_it_stops_after_max_frames(tmp_path):
    report = run(SEGMENTER, write_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4", max_frames=5)
    assert report.frames == 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_video_that_ends_in_the_middle_is_refused_and_nothing_is_written(tmp_path, suffix, share):
    clip = tmp_path / f"clip{suffix}"
    rng = np.random.default_rng(0)
    with av.open(str(clip), "w", options={"movflags": "faststart"} if suffix == ".mp4" else {}) as container:
        stream = container.add_stream("libx264", rate=12)
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        for _ in range(24):
            noise = rng.integers(0, 255, (96, 96, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    data = clip.read_bytes()
    clip.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"cut short: after frame \d+"):
        run(SEGMENTER, clip, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == [clip.name]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_last_frame_that_stands_for_long_is_no_damage(tmp_path, suffix):
    clip = tmp_path / f"clip{suffix}"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((96, 96, 3), 90, np.uint8), format="rgb24")
        packets = [packet for picture in [*[grey] * 5, None] for packet in stream.encode(picture)]
        packets[-1].duration = 20 * packets[0].duration
        container.mux(packets)
    assert sum(1 for _ in open_source(str(clip))) == 5


def test_a_video_without_its_index_is_refused(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    clip.write_bytes(clip.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot be opened as video|holds no video"):
        open_source(str(clip))


def test_the_address_of_a_file_is_a_file(tmp_path):
    (tmp_path / "a b").mkdir()
    clip = write_clip(tmp_path / "a b" / "clip.mp4")
    assert open_source(clip.as_uri()).count == 12


@pytest.mark.parametrize("uri", ["/nowhere/clip.mp4", "clip", "file:///nowhere/clip.mp4"])
def test_a_missing_video_is_named(uri):
    with pytest.raises(DataError, match="there is no video or folder"):
        open_source(uri)


def test_a_folder_of_images_is_a_video(tmp_path):
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((20, 30, 3), (0, 0, 80 * i), np.uint8))
    source = open_source(str(tmp_path))
    assert source.count == 3
    assert [frame[0, 0].tolist() for frame in source] == [[0, 0, 0], [80, 0, 0], [160, 0, 0]]


def test_a_damaged_image_in_a_folder_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((20, 30, 3), np.uint8))
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"b\.jpg is not an image that can be read, or was cut short"):
        list(open_source(str(tmp_path)))


def test_images_of_two_sizes_are_no_video(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((20, 32, 3), np.uint8))
    with pytest.raises(DataError, match="20x32, the images before it 20x30"):
        list(open_source(str(tmp_path)))


class SlowRoad:
    """Takes far longer for a frame than a file takes to be read."""

    name = "slow road"

    def __call__(self, frames):
        time.sleep(0.05)
        return np.zeros(frames.shape[:3], np.uint8)


def test_a_live_source_gives_the_newest_frame_and_counts_those_it_drops(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", frames=20)
    slow = Segmenter(SEGMENTER.spec, SlowRoad())
    report = run(slow, LiveStream(str(clip), None), tmp_path / "out.mp4", blend=0.0)
    assert report.dropped > 0
    assert report.frames + report.dropped == 20
    last = list(open_source(str(tmp_path / "out.mp4")))[-1]
    assert last.mean() == pytest.approx(40 + 10 * 19, abs=3)


def test_pixels_without_an_answer_stay_unpainted():
    frame = np.full((2, 2, 3), 100, np.uint8)
    labels = np.array([[0, 255], [3, 255]], np.uint8)
    painted = overlay(frame, labels, CAMVID, 1.0)
    assert painted.tolist() == [[[128, 128, 128], [100] * 3], [[128, 64, 128], [100] * 3]]


def test_the_real_dash_cam_clip_has_88_frames(shared_data):
    source = open_source(str(shared_data / "video" / "dashcam_1280x720.mp4"))
    assert source.count == 88
    assert sum(1 for _ in source) == 88
