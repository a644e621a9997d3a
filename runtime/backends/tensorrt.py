"""TensorRT: runs the plans that `roadseg.engines` builds. The vehicle's backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..artifacts import read_bytes
from ..cuda import Device
from ..errors import EngineError
from ..messages import in_plain_words, logger
from ..optional import require
from ..pixels import classify, normalise
from ..plan import FLAVOURS, FlavourName, check_plan


class TensorRTBackend:
    """Runs a plan on this machine's GPU, with a stream, buffers and execution context of its own.

    May be called from any thread, by one at a time; open one per worker to run at the same time.

    Raises:
        ArtifactError: if the plan is not what its manifest says.
        EngineError: if it was not built for this machine, or TensorRT refuses it.
        MissingDependencyError: if TensorRT or pycuda cannot be imported.
    """

    flavour: ClassVar[FlavourName] = "tensorrt"

    def __init__(self, path: Path) -> None:
        manifest, details = check_plan(path, self.flavour)
        self.spec = manifest.spec
        self.name = f"{FLAVOURS[self.flavour].title} {details.version} {details.precision}"
        self._details = details
        self._path = path
        self._cuda = Device()
        with self._cuda:
            self._engine = self._deserialize()
            self._context = self._create_context()
            self._input = self._cuda.allocate((details.batch, *details.input.shape[1:]), details.input.dtype)
            self._output = self._cuda.allocate((details.batch, *details.output.shape[1:]), details.output.dtype)
            self._bind()

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8, `batch` at a time."""
        self.spec.check_frames(frames)
        labels = np.empty(frames.shape[:3], np.uint8)
        with self._cuda:
            for start in range(0, len(frames), self._details.batch):
                part = slice(start, start + self._details.batch)
                labels[part] = self._answer(frames[part])
        return labels

    def close(self) -> None:
        """Free the GPU memory; the backend cannot be called any more."""
        with self._cuda:
            self._context = self._engine = None
        self._cuda.close()

    def _answer(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        count = len(frames)
        self._input.host[:count] = frames if self.spec.io == "frame" else normalise(frames, self.spec)
        self._set_batch(count)
        self._cuda.upload(self._input)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise EngineError(f"{self._path} failed on the GPU: {self._complaint()}")
        self._cuda.download(self._output)
        self._cuda.synchronize()
        output = self._output.host[:count]
        return output if self.spec.io == "frame" else classify(output)

    def _set_batch(self, count: int) -> None:
        info = self._details.input
        if info.shape[0] == -1 and not self._context.set_input_shape(info.name, (count, *info.shape[1:])):
            raise EngineError(f"{self._path} does not take {count} frames at once: {self._complaint()}")

    def _deserialize(self) -> Any:
        library = require(FLAVOURS[self.flavour].module, f"opening {self._path}")
        self._logger = logger(library)
        self._runtime = library.Runtime(self._logger)  # kept, because it has to outlive the engine
        engine = self._runtime.deserialize_cuda_engine(read_bytes(self._path))
        if engine is None:
            raise EngineError(f"{self._path} cannot be opened: {self._complaint()}")
        return engine

    def _create_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"{self._path} cannot be run, most likely for want of memory: {self._complaint()}")
        return context

    def _bind(self) -> None:
        self._context.set_tensor_address(self._details.input.name, int(self._input.device))
        self._context.set_tensor_address(self._details.output.name, int(self._output.device))

    def _complaint(self) -> str:
        title = FLAVOURS[self.flavour].title
        return in_plain_words(self._logger.take()) or f"{title} does not say why."
