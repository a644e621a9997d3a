import ctypes
import shutil
import subprocess
import threading

import numpy as np
import pytest

from roadseg.runtime import EngineError
from roadseg.runtime.cuda import Device, Gpu, LoadedKernel, find_gpu

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *device, int ordinal) { *device = 5 + ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 5 ? "Orin" : "?", size);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = device == 5 ? (attribute == 75 ? 8 : attribute == 76 ? 7 : -1) : -1;  /* cuda.h: compute capability */
    return 0;
}
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuGetErrorString(int code, const char **words) {
    *words = code == 803 ? "system has unsupported driver" : code == 218 ? "a PTX JIT compilation failed" : 0;
    return 0;
}

/* A GPU whose memory is the host's and whose one kernel, scale(x, count, times, y), makes y[i] of times * x[i]. */
static char ptx[64];
static int most_shared = 0;
unsigned launched[8];
int cuModuleLoadData(void **module, const void *image) {
    strncpy(ptx, image, sizeof ptx - 1);
    *module = ptx;
    return strcmp(image, "not PTX") ? 0 : 218;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = &most_shared;
    return module == ptx && strcmp(name, "scale") == 0 ? 0 : 500;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    if (attribute == 8) *(int *)function = value;
    return value > 232448;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    unsigned seen[8] = {gx, gy, gz, bx, by, bz, shared, (unsigned)(unsigned long)stream};
    float *x = *(float **)arguments[0], *y = *(float **)arguments[3];
    if (function != &most_shared || extra || shared > most_shared) return 1;
    memcpy(launched, seen, sizeof seen);
    for (int i = 0; i < *(int *)arguments[1]; i++) y[i] = *(int *)arguments[2] * x[i];
    return 0;
}
"""
"""The driver's interface as cuda.h declares it, for a machine that has no driver to ask."""


@pytest.fixture
def driver(tmp_path):
    """Compiles a driver library whose cuInit gives a certain answer."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")

    def compile_driver(init):
        source, library = tmp_path / "cuda.c", tmp_path / f"libcuda{init}.so"
        source.write_text(DRIVER)
        subprocess.run([compiler, "-shared", "-fPIC", f"-DINIT={init}", "-o", library, source], check=True)
        return str(library)

    return compile_driver


def test_without_a_driver_that_is_what_is_said():
    with pytest.raises(EngineError, match=r"^this machine has no NVIDIA driver \(libcuda\.so\.0 was not found\)$"):
        find_gpu("libcuda.so.0")


def test_a_driver_without_a_gpu_is_told_apart(driver):
    with pytest.raises(EngineError, match="has an NVIDIA driver but no NVIDIA GPU"):
        find_gpu(driver(100))


def test_a_broken_driver_is_quoted_in_words(driver):
    with pytest.raises(EngineError, match=r"cannot be used \(system has unsupported driver\)$"):
        find_gpu(driver(803))


def test_a_driver_may_have_no_words(driver):
    with pytest.raises(EngineError, match=r"cannot be used \(it does not say why\)$"):
        find_gpu(driver(999))


def test_the_first_gpu_is_described(driver):
    assert find_gpu(driver(0)) == Gpu("Orin", "8.7", "12.6")


def scale(kernel, grid=(2, 3, 4), threads=128):
    """Launch the kernel on five numbers, with a stream of handle 77."""
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
    kernel.launch(grid, threads, [addresses[0], ctypes.c_int32(5), ctypes.c_int32(-3), addresses[1]], 77)
    return y


def test_a_kernel_gets_its_arguments_and_the_shape_of_its_launch(driver):
    library = driver(0)
    answer = scale(LoadedKernel(".version 8.5", "scale", 200_000, library))
    np.testing.assert_array_equal(answer, [0, -3, -6, -9, -12])
    launched = (ctypes.c_uint * 8).in_dll(ctypes.CDLL(library), "launched")
    assert list(launched) == [2, 3, 4, 128, 1, 1, 200_000, 77]


@pytest.mark.parametrize(
    ("ptx", "entry", "shared_bytes", "message"),
    [
        ("not PTX", "scale", 0, "kernel scale: cuModuleLoadData fails \\(a PTX JIT compilation failed"),
        (".version 8.5", "rotate", 0, "kernel rotate: cuModuleGetFunction fails \\(it does not say why"),
        (".version 8.5", "scale", 300_000, "kernel scale: cuFuncSetAttribute fails"),
    ],
)
def test_a_kernel_that_the_driver_refuses_is_named(driver, ptx, entry, shared_bytes, message):
    with pytest.raises(EngineError, match=message):
        LoadedKernel(ptx, entry, shared_bytes, driver(0))


def test_a_kernel_needs_a_driver():
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        LoadedKernel(".version 8.5", "scale", 0, "libcuda.so.0")


@pytest.mark.gpu
def test_a_buffer_comes_back_from_the_gpu_unchanged_from_any_thread():
    pytest.importorskip("pycuda")
    with Device() as cuda:
        buffer = cuda.allocate((3, 5), np.float32)
    sent = np.arange(15, dtype=np.float32).reshape(3, 5)
    buffer.host[:] = sent

    def round_trip():
        with cuda:
            cuda.upload(buffer)
            cuda.synchronize()
            buffer.host[:] = 0
            cuda.download(buffer)
            cuda.synchronize()

    thread = threading.Thread(target=round_trip)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(buffer.host, sent)
    cuda.close()


@pytest.mark.gpu
def test_workers_share_one_context_and_have_a_stream_each():
    driver = pytest.importorskip("pycuda.driver")
    first, second = Device(), Device()
    with first:
        context = driver.Context.get_current()
    with second:
        assert driver.Context.get_current() == context
    assert first.stream != second.stream
    first.close()
    second.close()
