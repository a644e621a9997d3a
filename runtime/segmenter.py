"""A model, ready to answer frames."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .artifacts import read_manifest
from .backends.protocol import Backend
from .errors import ArtifactError, SpecError, UsageError
from .optional import require
from .pixels import fit, unfit
from .spec import ModelSpec, Size

OPENERS_GROUP = "roadseg.openers"
"""Entry points of further file types: suffix = function(path, size) -> (ModelSpec, Backend)."""


class Segmenter:
    """Labels every pixel of camera frames.

    >>> class AlwaysRoad:
    ...     name = "always road"
    ...     def __call__(self, frames):
    ...         return np.zeros(frames.shape[:3], np.uint8)
    >>> spec = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))
    >>> Segmenter(spec, AlwaysRoad()).segment(np.zeros((2, 4, 3), np.uint8))
    array([[0, 0, 0, 0],
           [0, 0, 0, 0]], dtype=uint8)
    """

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        self.spec = spec
        self.backend = backend

    @classmethod
    def open(cls, path: Path | str, size: Size | None = None) -> Segmenter:
        """Open a checkpoint, an ONNX model or a plan.

        Args:
            path: the file; its suffix says what it is.
            size: rows and columns, for a checkpoint, which has no size of its own; any other file has one already.

        Raises:
            UsageError: if files of this kind cannot be opened.
            ArtifactError: if the file is missing, damaged or not what its manifest says.
            SpecError: if the file has another size than the one asked for.
            EngineError: if a plan cannot run on this machine.
            MissingDependencyError: if the library it needs is not installed.
        """
        path = Path(path)
        if not path.exists():
            raise ArtifactError(f"{path} does not exist.")
        spec, backend = find_opener(path)(path, size)
        if size is not None and spec.size != tuple(size):
            raise SpecError(
                f"{path} takes frames of {spec.height}x{spec.width}, not {size[0]}x{size[1]}. "
                "Export the network at that size."
            )
        return cls(spec, backend)

    def segment(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Label every pixel of one camera frame.

        Args:
            frame: `(height, width, 3)` uint8 RGB, the size in `spec`.

        Returns:
            `(height, width)` uint8 train ids.

        Raises:
            SpecError: if `frame` has another shape or type.
        """
        labels: npt.NDArray[np.uint8] = self.segment_batch(frame[None])[0]
        return labels

    def segment_batch(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Label frames `(N, height, width, 3)` uint8 RGB; returns `(N, height, width)` uint8 train ids.

        Raises:
            SpecError: if `frames` has another shape or type.
        """
        self.spec.check_frames(frames)
        return self.backend(frames)

    def segment_fitted(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Label a frame `(h, w, 3)` uint8 RGB of any size; returns `(h, w)` uint8 train ids.

        The frame is resized by `spec.resize` before the model and its labels back after it.
        """
        return unfit(self.segment(fit(frame, self.spec)), self.spec, (frame.shape[0], frame.shape[1]))


Opener = Callable[[Path, "Size | None"], "tuple[ModelSpec, Backend]"]


def find_opener(path: Path) -> Opener:
    """What opens files of this suffix: one of ours, or one that an installed package registers.

    Raises:
        UsageError: if nothing does.
        MissingDependencyError: if it needs a library that is not installed.
    """
    if path.suffix in OPENERS:
        return OPENERS[path.suffix]
    registered = importlib.metadata.entry_points(group=OPENERS_GROUP)
    for entry in registered:
        if entry.name == path.suffix:
            opener: Opener = getattr(require(entry.module, f"opening {path}"), entry.attr)
            return opener
    known = sorted({*OPENERS, *(entry.name for entry in registered)})
    raise UsageError(f"{path} is not a model that can be opened; known are files ending in {', '.join(known)}.")


def open_onnx(path: Path, _: Size | None) -> tuple[ModelSpec, Backend]:
    """An ONNX model, in ONNX Runtime."""
    from .backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(path)
    return backend.spec, backend


def open_plan(path: Path, _: Size | None) -> tuple[ModelSpec, Backend]:
    """A plan, in the flavour of TensorRT that its manifest names."""
    from .backends.tensorrt import TensorRTBackend
    from .backends.tensorrt_rtx import TensorRTRTXBackend

    rtx = read_manifest(path, "plan").details.get("flavour") == "rtx"
    backend = TensorRTRTXBackend(path) if rtx else TensorRTBackend(path)
    return backend.spec, backend


OPENERS: dict[str, Opener] = {".onnx": open_onnx, ".plan": open_plan}
"""File types that the runtime opens by itself, by suffix."""
