"""Kernels on a GPU, at full frame, beside their references. Run: pytest -m gpu."""

import ctypes
import os

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import EXACT, arguments_of, distance, in_double
from roadseg.export.ops import OPS
from roadseg.export.ops.compile import PTX_VERSIONS, compile_kernel
from roadseg.runtime.cuda import LoadedKernel, find_gpu


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_kernel_gives_at_full_frame_what_the_reference_gives(op, dtype):
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton interprets kernels in this run; it compiles them in `pytest -m gpu`")
    args = arguments_of(op, op.full_frame(dtype))
    assert_right(op, args, op.kernel(*args), dtype)


def assert_right(op, args, answer, dtype):
    """To the bit what the definition gives, or not much farther from it in FP64 than it is itself."""
    expected = op.reference(*args)
    assert (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
    if op.name in EXACT:
        assert torch.equal(answer, expected)
    else:
        exact = op.reference(*(in_double(x) for x in args))
        allowed = 2e-3 if dtype == torch.float16 else max(2e-6, 2 * distance(expected, exact))
        assert distance(answer, exact) <= allowed


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_ptx_that_the_driver_launches_gives_what_the_kernel_gives(op, dtype):
    gpu = find_gpu().compute_capability
    if os.environ.get("TRITON_INTERPRET") == "1" or gpu not in PTX_VERSIONS:
        pytest.skip(f"nothing is compiled for {gpu} in this run")
    args = arguments_of(op, op.full_frame(dtype))
    made = compile_kernel(op.kernel, op.full_frame(dtype), gpu)
    answer = torch.empty(made.call.answer.shape, dtype=made.call.answer.dtype, device="cuda")
    inputs = [ctypes.c_void_p(x.data_ptr()) for x in args if isinstance(x, Tensor)]
    integers = map(ctypes.c_int32, made.call.integers.values())
    kernel = LoadedKernel(made.ptx, made.name, made.shared_bytes)
    stream = torch.cuda.current_stream().cuda_stream
    kernel.launch(made.call.grid, made.threads, [*inputs, *integers, ctypes.c_void_p(answer.data_ptr())], stream)
    torch.cuda.synchronize()
    assert_right(op, args, answer, dtype)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_arguments_of_a_full_frame_are_filled_in_kind(op):
    shapes = [x for x in op.full_frame(torch.float16) if isinstance(x, Tensor)]
    values = [x for x in arguments_of(op, op.full_frame(torch.float16), "cpu") if isinstance(x, Tensor)]
    assert [(x.shape, x.dtype) for x in values] == [(x.shape, x.dtype) for x in shapes]
    assert all(x.flatten()[:1000].unique().numel() > 1 for x in values)
