"""Labelling video: files, folders of images, cameras and streams in, H.264 out."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.request import url2pathname

import numpy as np
import numpy.typing as npt

from .artifacts import atomic_path
from .errors import DataError
from .images import find_frames, read_frame
from .labels import LabelSet
from .optional import require
from .progress import track
from .segmenter import Segmenter

log = logging.getLogger(__name__)

Frame = npt.NDArray[np.uint8]
"""`(H, W, 3)` uint8 RGB."""

FOLDER_FPS = Fraction(10)
"""At which a folder of images is played."""
QUALITY = "20"
"""x264's constant rate factor: 18 is visually lossless, 23 the default (trac.ffmpeg.org/wiki/Encode/H.264)."""
ENCODER_THREADS = 4
"""A fixed number, because what x264 writes depends on it, and by default it follows the number of cores."""
BT709 = 1
"""Colours as browsers take high definition to have; AVCOL_SPC_, _PRI_ and _TRC_BT709 of libavutil/pixfmt.h."""
LIMITED_RANGE = 1
"""Luma from 16 to 235; AVCOL_RANGE_MPEG of libavutil/pixfmt.h."""


@dataclasses.dataclass(frozen=True)
class RunReport:
    """How a video was labelled."""

    frames: int
    """Labelled and written."""
    dropped: int
    """Frames of a live source that came while the model was busy; never any of a file."""
    fps: float
    """Frames per second from the first to the last, reading and writing included."""
    p50_ms: float
    """Latency of the model per frame, resizing included, reading and writing not."""
    p90_ms: float
    p99_ms: float


class Source(Protocol):
    """Frames from somewhere, all of one size."""

    fps: Fraction
    count: int | None
    """How many frames there will be, where that is known."""
    dropped: int

    def __iter__(self) -> Iterator[Frame]: ...


def run(
    segmenter: Segmenter,
    source: str | Path | Source,
    out: Path,
    *,
    blend: float = 0.5,
    max_frames: int | None = None,
) -> RunReport:
    """Label every frame of a source and write what comes out as a video, once it is complete.

    Args:
        segmenter: the model; frames of another size are resized for it.
        source: a video file, a folder of images, a camera (/dev/video0), an address (rtsp://...), or a Source.
        out: an .mp4 file.
        blend: share of the label colours in the picture, 0 to 1.
        max_frames: stop after so many.

    Raises:
        DataError: if the source cannot be read, is damaged, or has no frames.
        ArtifactError: if the video cannot be written.
    """
    frames = open_source(str(source)) if isinstance(source, (str, Path)) else source
    latencies_ms = []
    begun = time.perf_counter()
    with atomic_path(out) as temporary, VideoWriter(temporary, frames.fps) as writer:
        what = f"label with {segmenter.backend.name}"
        for frame in track(islice(frames, max_frames), what, _fewer(frames.count, max_frames)):
            labels, latency_ms = _timed(segmenter, frame)
            latencies_ms.append(latency_ms)
            writer.write(overlay(frame, labels, segmenter.spec.label_set, blend))
        if not latencies_ms:
            raise DataError("the video has no frames.")
    elapsed_s = time.perf_counter() - begun
    p50, p90, p99 = (float(p) for p in np.percentile(latencies_ms, (50, 90, 99)))
    return RunReport(len(latencies_ms), frames.dropped, len(latencies_ms) / elapsed_s, p50, p90, p99)


def overlay(frame: Frame, labels: npt.NDArray[np.uint8], label_set: LabelSet, blend: float) -> Frame:
    """The frame with its label colours painted over; pixels without an answer stay as they are."""
    cv2 = require("cv2", "painting labels")
    painted: Frame = cv2.addWeighted(frame, 1 - blend, label_set.colorize(labels), blend, 0)
    return np.where((labels < len(label_set.classes))[..., None], painted, frame)


def open_source(uri: str) -> Source:
    """A video file, a folder of images, a camera or a stream.

    Raises:
        DataError: if there is no such file or folder, or it holds no video.
    """
    if uri.startswith("file://"):
        uri = url2pathname(uri.removeprefix("file://"))
    if "://" in uri:
        return LiveStream(uri, None)
    if uri.startswith("/dev/video"):
        return LiveStream(uri, "v4l2")
    path = Path(uri)
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise DataError(f"there is no video or folder {uri}.")
    return VideoFile(path)


class VideoFile:
    """Every frame of a video file; a damaged or shortened one ends in a DataError that names the frame."""

    dropped = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as (_, stream):
            self.fps = stream.average_rate or Fraction(25)
            # Not stream.frames, which counts those before the cut of an edit list, too.
            seconds = stream.duration and stream.duration * stream.time_base
            self.count: int | None = round(seconds * self.fps) if seconds else None

    def __iter__(self) -> Iterator[Frame]:
        av = require("av", "reading video")
        done = 0
        end_s = 0.0
        with self._opened() as (container, stream):
            try:
                for packet in container.demux(stream):
                    for picture in packet.decode():
                        if packet.is_corrupt or picture.is_corrupt:
                            raise self._cut_short(done)
                        yield picture.to_ndarray(format="rgb24")
                        done += 1
                        end_s = max(end_s, _end_s(picture, self.fps))
                    if packet.is_corrupt:
                        raise self._cut_short(done)
            except av.FFmpegError as error:
                raise self._cut_short(done) from error
            promised_s = _duration_s(container, stream)
        if promised_s is not None and promised_s - end_s > 0.5 / float(self.fps):
            raise self._cut_short(done)

    def _cut_short(self, done: int) -> DataError:
        return DataError(
            f"{self.path} is damaged or was cut short: after frame {done} it cannot be decoded. "
            "Copy it again, or label what there is with --max-frames."
        )

    def _opened(self) -> _Opened:
        return _Opened(str(self.path), None)


class ImageFolder:
    """The images of a folder in the order of their names."""

    dropped = 0
    fps = FOLDER_FPS

    def __init__(self, folder: Path) -> None:
        self.paths = find_frames(folder)
        self.count: int | None = len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        size = None
        for path in self.paths:
            frame = read_frame(path)
            size = size or frame.shape
            if frame.shape != size:
                raise DataError(
                    f"{path} is {frame.shape[0]}x{frame.shape[1]}, the images before it {size[0]}x{size[1]}; "
                    "a video has one size."
                )
            yield frame


class LiveStream:
    """The newest frame of a camera or network stream; those that come while it is being labelled are dropped."""

    count: int | None = None

    def __init__(self, uri: str, format_: str | None) -> None:
        self.uri = uri
        self.format = format_
        self.dropped = 0
        with _Opened(uri, format_) as (_, stream):
            self.fps = stream.average_rate or Fraction(25)

    def __iter__(self) -> Iterator[Frame]:
        newest = _Newest()
        threading.Thread(target=self._read, args=(newest,), daemon=True).start()
        try:
            while (frame := newest.take()) is not None:
                yield frame
        finally:
            newest.end()
            self.dropped = newest.dropped

    def _read(self, newest: _Newest) -> None:
        av = require("av", "reading a stream")
        try:
            with _Opened(self.uri, self.format) as (container, stream):
                for picture in container.decode(stream):
                    if newest.ended:
                        return
                    newest.put(picture.to_ndarray(format="rgb24"))
        except (av.FFmpegError, DataError):
            log.warning("%s broke off", self.uri)
        finally:
            newest.end()


class _Newest:
    """Hands one frame from thread to thread; a newer one takes the place of one that nobody has taken."""

    def __init__(self) -> None:
        self.dropped = 0
        self.ended = False
        self._frame: Frame | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self.ended = True
            self._changed.notify()

    def take(self) -> Frame | None:
        """The newest frame, waiting for one; None once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self.ended)
            frame, self._frame = self._frame, None
            return frame


class VideoWriter:
    """Writes H.264 in MP4 that every player and browser takes; the size is that of the first frame.

    An odd number of rows or columns is made even by repeating the last one: H.264's 4:2:0 colours need it.
    """

    def __init__(self, path: Path, fps: Fraction) -> None:
        av = require("av", "writing video")
        self._av = av
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps, options={"crf": QUALITY, "preset": "fast"})
        self._stream.pix_fmt = "yuv420p"
        encoder = self._stream.codec_context
        encoder.thread_count = ENCODER_THREADS
        encoder.colorspace = encoder.color_primaries = encoder.color_trc = BT709
        encoder.color_range = LIMITED_RANGE
        self._begun = False

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()

    def write(self, frame: Frame) -> None:
        """Add one frame `(H, W, 3)` uint8 RGB."""
        even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if not self._begun:
            self._stream.height, self._stream.width = even.shape[:2]
            self._begun = True
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._mux(picture.reformat(format="yuv420p", dst_colorspace="ITU709"))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        if self._begun:
            self._mux(None)
        self._container.close()

    def _mux(self, picture: Any) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(packet)


class _Opened:
    """A container and its first video stream, closed after the block."""

    def __init__(self, uri: str, format_: str | None) -> None:
        av = require("av", "reading video")
        try:
            self.container = av.open(uri, format=format_)
        except (av.FFmpegError, OSError) as error:
            raise DataError(
                f"{uri} cannot be opened as video ({error.strerror or error}); is it complete?"
            ) from error
        if not self.container.streams.video:
            self.container.close()
            raise DataError(f"{uri} holds no video.")

    def __enter__(self) -> tuple[Any, Any]:
        stream = self.container.streams.video[0]
        stream.thread_type = "AUTO"
        return self.container, stream

    def __exit__(self, *_: object) -> None:
        self.container.close()


def _fewer(count: int | None, limit: int | None) -> int | None:
    return min((number for number in (count, limit) if number is not None), default=None)


def _timed(segmenter: Segmenter, frame: Frame) -> tuple[npt.NDArray[np.uint8], float]:
    begun = time.perf_counter()
    labels = segmenter.segment_fitted(frame)
    return labels, 1000 * (time.perf_counter() - begun)


def _end_s(picture: Any, fps: Fraction) -> float:
    """Until when a picture is shown, in seconds; the last one of a video is often shown for long."""
    return float((picture.pts or 0) * picture.time_base + max(picture.duration * picture.time_base, 1 / fps))


def _duration_s(container: Any, stream: Any) -> float | None:
    """How long the file says its video is, in seconds."""
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    # Matroska tells the length of the whole file only; with sound beside it that is not the video's.
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / 1e6
    return None
