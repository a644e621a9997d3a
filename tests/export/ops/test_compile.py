"""Kernels are compiled in a process of their own: in that of the tests Triton interprets them."""

import json
import os
import subprocess
import sys

import pytest
import torch
import triton

from roadseg.export.ops import OPS, UPSAMPLE_ARGMAX
from roadseg.export.ops.compile import PTX_VERSIONS, compile_kernel, without_scratch
from roadseg.runtime import BuildError, UsageError

COMPILE_ALL = """
import json, torch
from roadseg.export.ops import OPS
from roadseg.export.ops.compile import PTX_VERSIONS, compile_kernel, without_scratch

for name, op in OPS.items():
    for compute_capability in PTX_VERSIONS:
        made = compile_kernel(op.kernel, op.full_frame(torch.float16), compute_capability)
        print(json.dumps([name, compute_capability, made.ptx_version, made.ptx.split(".version ")[1][:3],
                          made.ptx.split(".target sm_")[1].split()[0], len(made.cubin), made.shared_bytes,
                          made.spilled_bytes]))
made = compile_kernel(OPS["UpsampleArgmax"].kernel, OPS["UpsampleArgmax"].full_frame(torch.float32), "8.7")
print(json.dumps([made.name, made.call.signature, made.call.integers, made.call.grid, "fma.rn" in made.ptx,
                  any(sign in made.ptx for sign in (".file", ".loc", ".py")),
                  made.ptx.partition("(")[2].partition(")")[0].count(".param")]))
"""


@pytest.fixture(scope="module")
def lines():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE_ALL]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_every_gpu_in_the_ptx_its_driver_takes(lines):
    compiled = {(name, target): rest for name, target, *rest in lines[:-1]}
    assert compiled.keys() == {(name, target) for name in OPS for target in PTX_VERSIONS}
    for (_, target), (version, written, architecture, cubin_bytes, *_) in compiled.items():
        assert version == PTX_VERSIONS[target]
        assert written == f"{version // 10}.{version % 10}"
        assert architecture.rstrip("a") == target.replace(".", "")
        assert cubin_bytes > 1000


def test_no_kernel_spills_on_orin_and_hopper(lines):
    spilling = {(name, target): spilled for name, target, *_, spilled in lines[:-1] if spilled}
    assert {key: spilled for key, spilled in spilling.items() if key[1] in ("8.7", "9.0")} == {}


def test_no_kernel_needs_more_shared_memory_than_every_launch_gets(lines):
    needed = {(name, target): shared for name, target, *_, shared, _ in lines[:-1]}
    assert max(needed.values()) <= 49152
    # Staged it would be 49696 bytes.
    assert needed["NonLocalAttention", "11.0"] == 32768


def test_a_call_says_what_a_launch_needs_and_the_ptx_neither_fuses_nor_tells_where_it_is_from(lines):
    name, signature, integers, grid, fused, located, parameters = lines[-1]
    assert name == "upsample_argmax_kernel"
    assert list(signature.values()) == ["*fp32", *["i32"] * 5, "*u8", *["constexpr"] * 9]
    assert integers == {"classes": 19, "rows": 128, "columns": 256, "to_rows": 1024, "to_columns": 2048}
    assert grid == [16, 129, 1]
    assert not fused
    assert not located
    assert parameters == 7


def test_parameters_that_nobody_passes_are_dropped_unless_they_are_used():
    ptx = ".entry k(\n.param .u64 k_param_0,\n.param .u64 k_param_1\n)\n{ ld.param.b64 %r, [k_param_0]; }"
    kept = ".entry k(\n.param .u64 k_param_0\n)\n{ ld.param.b64 %r, [k_param_0]; }"
    assert without_scratch(ptx, "k", 1) == kept
    with pytest.raises(BuildError, match=r"k needs scratch memory \(parameter 0\)"):
        without_scratch(ptx, "k", 0)


@pytest.fixture
def compiling(monkeypatch):
    """As in a process where Triton compiles."""
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)


@pytest.mark.usefixtures("compiling")
def test_an_unknown_gpu_is_refused():
    with pytest.raises(UsageError, match=r"are compiled for compute capability 7\.5, .*, not 7\.2"):
        compile_kernel(UPSAMPLE_ARGMAX.kernel, UPSAMPLE_ARGMAX.full_frame(torch.float16), "7.2")


def test_a_process_that_interprets_kernels_compiles_none():
    with pytest.raises(UsageError, match="unset it to compile"):
        compile_kernel(UPSAMPLE_ARGMAX.kernel, UPSAMPLE_ARGMAX.full_frame(torch.float16), "8.7")
