"""CUDA, and nowhere else: which GPU there is and kernels on it (by ctypes alone), and device memory (by pycuda).

The primary context is retained, the one that TensorRT, PyTorch and the CUDA runtime use as well; a context of
our own per thread would keep them from sharing memory and from running at the same time.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from .errors import EngineError
from .optional import require

DRIVER_LIBRARY = "libcuda.so.1"

# Values of CUdevice_attribute, CUfunction_attribute and CUresult in cuda.h.
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
CUDA_ERROR_NO_DEVICE = 100


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The GPU that everything runs on: the first that CUDA_VISIBLE_DEVICES leaves visible."""

    name: str
    """E.g. "Orin" or "NVIDIA GeForce RTX 3090"."""
    compute_capability: str
    """E.g. "8.6"."""
    driver: str
    """Newest CUDA the driver serves, e.g. "12.6"."""


def find_gpu(library: str = DRIVER_LIBRARY) -> Gpu:
    """Ask the driver for its first GPU.

    Raises:
        EngineError: with a clause that says what is missing, without a full stop, so that it can be gone on with.
    """
    driver = _open_driver(library)
    _ask(driver, "cuInit", ctypes.c_uint(0))
    device = _number(driver, "cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    _ask(driver, "cuDeviceGetName", name, len(name), device)
    major = _number(driver, "cuDeviceGetAttribute", COMPUTE_CAPABILITY_MAJOR, device)
    minor = _number(driver, "cuDeviceGetAttribute", COMPUTE_CAPABILITY_MINOR, device)
    version = _number(driver, "cuDriverGetVersion")
    # 12060 is CUDA 12.6 (cuDriverGetVersion: 1000 * major + 10 * minor).
    return Gpu(name.value.decode(), f"{major}.{minor}", f"{version // 1000}.{version % 1000 // 10}")


def _open_driver(library: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(library)
    except OSError as error:
        raise EngineError(f"this machine has no NVIDIA driver ({library} was not found)") from error


def _number(driver: ctypes.CDLL, function: str, *arguments: int) -> int:
    answer = ctypes.c_int()
    _ask(driver, function, ctypes.byref(answer), *arguments)
    return answer.value


def _ask(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    code = getattr(driver, function)(*arguments)
    if code == CUDA_ERROR_NO_DEVICE:
        raise EngineError("this machine has an NVIDIA driver but no NVIDIA GPU that it can see")
    if code:
        raise EngineError(f"the NVIDIA driver of this machine cannot be used ({_reason(driver, code)})")


def _reason(driver: ctypes.CDLL, code: int) -> str:
    words = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(words))
    return words.value.decode() if words.value else "it does not say why"


class LoadedKernel:
    """A kernel that was compiled to PTX, in the memory of the GPU whose context is current in this thread.

    Raises:
        EngineError: if the driver does not take the PTX, or later the launch.
    """

    def __init__(self, ptx: str, entry: str, shared_bytes: int, library: str = DRIVER_LIBRARY) -> None:
        self._entry = entry
        self._shared_bytes = shared_bytes
        self._driver = _open_driver(library)
        module = ctypes.c_void_p()
        self._function = ctypes.c_void_p()
        self._do("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(ptx.encode()))
        self._do("cuModuleGetFunction", ctypes.byref(self._function), module, ctypes.c_char_p(entry.encode()))
        # Up to 48 KiB a launch gets without asking; asking for less than that changes nothing.
        self._do("cuFuncSetAttribute", self._function, MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes)

    def launch(
        self,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[ctypes.c_void_p | ctypes.c_int32],
        stream: int,
    ) -> None:
        """Queue the kernel on a stream.

        Args:
            grid: blocks along x, y and z.
            threads: per block, along x.
            arguments: of the kernel, in its order: addresses on the GPU and integers.
            stream: handle.
        """
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        block = (ctypes.c_uint(threads), ctypes.c_uint(1), ctypes.c_uint(1))
        self._do(
            "cuLaunchKernel",
            self._function,
            *map(ctypes.c_uint, grid),
            *block,
            ctypes.c_uint(self._shared_bytes),
            ctypes.c_void_p(stream),
            addresses,
            None,
        )

    def _do(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            reason = _reason(self._driver, code)
            raise EngineError(f"the NVIDIA driver refuses the kernel {self._entry}: {function} fails ({reason}).")


@functools.cache
def load_kernel(ptx: str, entry: str, shared_bytes: int) -> LoadedKernel:
    """A kernel of the primary context, loaded once for the life of the process; errors as `LoadedKernel`."""
    return LoadedKernel(ptx, entry, shared_bytes)


@dataclasses.dataclass(frozen=True)
class Buffer:
    """The same array twice: pinned on the host, and on the GPU."""

    host: npt.NDArray[Any]
    pinned: Any
    """The pycuda `PagelockedHostAllocation` behind `host`."""
    device: Any
    """A pycuda `DeviceAllocation`; `int()` of it is the address."""


class Device:
    """What one worker needs of CUDA: the GPU's primary context, a stream of its own, and its buffers.

    May be used from any thread, by one at a time: the context is made current for the length of a `with` only.

    >>> with Device() as cuda:  # doctest: +SKIP
    ...     frames = cuda.allocate((1, 480, 640, 3), np.uint8)
    ...     cuda.upload(frames)
    ...     cuda.synchronize()

    Raises:
        MissingDependencyError: if pycuda cannot be imported.
    """

    def __init__(self) -> None:
        self._driver = require("pycuda.driver", "running a plan")
        self._context = _primary_context(self._driver)
        self._buffers: list[Buffer] = []
        with self:
            self._stream = self._driver.Stream()

    def __enter__(self) -> Device:
        self._context.push()
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.Context.pop()

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        return int(self._stream.handle)

    def allocate(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """A buffer that lives until `close`."""
        host = self._driver.pagelocked_empty(shape, dtype)
        self._buffers.append(Buffer(host, host.base, self._driver.mem_alloc(host.nbytes)))
        return self._buffers[-1]

    def upload(self, buffer: Buffer) -> None:
        """Queue the copy from host to GPU."""
        self._driver.memcpy_htod_async(buffer.device, buffer.host, self._stream)

    def download(self, buffer: Buffer) -> None:
        """Queue the copy from GPU to host."""
        self._driver.memcpy_dtoh_async(buffer.host, buffer.device, self._stream)

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        self._stream.synchronize()

    def close(self) -> None:
        """Free the buffers and the stream."""
        with self:
            for buffer in self._buffers:
                buffer.device.free()
                buffer.pinned.free()
            self._buffers.clear()
            self._stream = None


@functools.cache
def _primary_context(driver: Any) -> Any:
    # Kept for the life of the process: pycuda's detach() would leave a released context current in its thread.
    driver.init()
    return driver.Device(0).retain_primary_context()
