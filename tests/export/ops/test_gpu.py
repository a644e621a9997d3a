"""Kernels on a GPU, at full frame, beside their references. Run: pytest -m gpu."""

import ctypes
import os

import pytest
import torch
from torch import Tensor

from roadseg.export.ops import MAX_POOL_INDICES, MAX_UNPOOL, OPS
from roadseg.export.ops.compile import PTX_VERSIONS, compile_kernel
from roadseg.runtime.cuda import LoadedKernel, find_gpu

EXACT = {"MaxPoolIndices", "MaxUnpool2d", "PSAMask", "UpsampleArgmax"}
"""They only move and compare numbers, or round as their references do."""


def filled(op, dtype, device):
    """Arguments of a full frame with values in place of shapes."""
    generator = torch.Generator().manual_seed(0)
    args = [value_for(x, generator) if isinstance(x, Tensor) else x for x in op.full_frame(dtype)]
    if op is MAX_UNPOOL:
        args[1] = MAX_POOL_INDICES(torch.randn(*args[0].shape[:2], *args[2], generator=generator), *args[3:])
    return [x.to(device) if isinstance(x, Tensor) else x for x in args]


def value_for(x, generator):
    """A tensor of the same shape and type."""
    if x.is_floating_point():
        return torch.randn(x.shape, generator=generator).to(x.dtype)
    return torch.randint(256, x.shape, generator=generator).to(x.dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_kernel_gives_at_full_frame_what_the_reference_gives(op, dtype):
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton interprets kernels in this run; it compiles them in `pytest -m gpu`")
    args = filled(op, dtype, "cuda")
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


def in_double(x):
    """A floating-point tensor in FP64; everything else as it is."""
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def distance(answer, exact):
    """Largest difference, relative to the largest value. Sums of 32768 products differ by more than 2e-6 in FP32,
    those of PyTorch as well."""
    return float((answer.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_ptx_that_the_driver_launches_gives_what_the_kernel_gives(op, dtype):
    gpu = find_gpu().compute_capability
    if os.environ.get("TRITON_INTERPRET") == "1" or gpu not in PTX_VERSIONS:
        pytest.skip(f"nothing is compiled for {gpu} in this run")
    args = filled(op, dtype, "cuda")
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
    values = [x for x in filled(op, torch.float16, "cpu") if isinstance(x, Tensor)]
    assert [(x.shape, x.dtype) for x in values] == [(x.shape, x.dtype) for x in shapes]
    assert all(x.flatten()[:1000].unique().numel() > 1 for x in values)
