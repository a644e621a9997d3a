"""ONNX Runtime: runs FP32, FP16 and INT8 models anywhere, and so measures them before a device is touched."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifacts import read_bytes
from ..errors import ArtifactError, EngineError, MissingDependencyError
from ..onnxfile import PRECISION_KEY, load_onnx, read_spec
from ..optional import require
from ..pixels import classify, normalise

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""In order of preference."""
FATAL_ONLY = 4
"""ONNX Runtime's severity level: what is less is raised, and told by us."""


class OnnxRuntimeBackend:
    """Runs an ONNX model that roadseg exported.

    Raises:
        ArtifactError: if the file is no ONNX model, was cut short, or holds no ModelSpec.
        MissingDependencyError: if ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        ort = require("onnxruntime", f"running {path}")
        self._path = path
        self._session = _open(ort, path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.spec = read_spec(metadata, path)
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.name = f"ONNX Runtime {ort.__version__} {provider} {metadata.get(PRECISION_KEY, '')}".rstrip()
        self._input = self._session.get_inputs()[0]

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8, as many at once as it takes."""
        self.spec.check_frames(frames)
        batch = self._input.shape[0] if isinstance(self._input.shape[0], int) else max(1, len(frames))
        parts = [self._answer(frames[i : i + batch], batch) for i in range(0, len(frames), batch)]
        return np.concatenate(parts) if parts else np.empty((0, *self.spec.size), np.uint8)

    def _answer(self, frames: npt.NDArray[np.uint8], batch: int) -> npt.NDArray[np.uint8]:
        missing = batch - len(frames)
        padded = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]) if missing else frames
        fed = np.ascontiguousarray(padded) if self.spec.io == "frame" else normalise(padded, self.spec)
        try:
            output = self._session.run(None, {self._input.name: fed})[0]
        except Exception as error:  # ONNX Runtime's own classes have no common base but Exception
            raise EngineError(f"{self._path} failed in ONNX Runtime: {_first_line(error)}") from error
        labels: npt.NDArray[np.uint8] = output if self.spec.io == "frame" else classify(output)
        return labels[: len(frames)]


def _open(ort: Any, path: Path, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    if threads:
        options.intra_op_num_threads = threads
    providers = [p for p in PROVIDERS if p in ort.get_available_providers()]
    data = read_bytes(path)
    try:
        return ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # see above
        with contextlib.suppress(MissingDependencyError):
            load_onnx(path)  # tells a wrong opset and a file cut short apart, where onnx is installed
        raise ArtifactError(
            f"{path} cannot be opened by ONNX Runtime {ort.__version__}; it was cut short, or uses what this "
            f"version does not know ({_first_line(error)}). Export it again."
        ) from error


def _first_line(error: Exception) -> str:
    """What ONNX Runtime says, without its error codes and places in its source."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+:\d+ .*?\) (?=[A-Z]))?", "", str(error).strip())
    return text.partition("\n")[0].removesuffix(".") or type(error).__name__
