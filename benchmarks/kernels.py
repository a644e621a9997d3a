"""What every operator's kernel needs of a GPU, and what it saves: compiled and counted, on any machine.

Run: python -m benchmarks.kernels --out benchmarks/results/kernels [--only NAME ...]
It writes compiled.json and costs.json with the figures, and README.md with both as tables; no GPU runs anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from roadseg.export.ops import OPS
from roadseg.export.ops.compile import PTX_VERSIONS, compile_kernel
from roadseg.export.ops.costs import Cost, body_cost, kernel_cost
from roadseg.runtime import sha256_bytes

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
Row = dict[str, Any]


def compiled_rows(names: list[str]) -> list[Row]:
    """One row per kernel, type and compute capability."""
    return [
        compiled_row(name, dtype, compute_capability)
        for name in names
        if OPS[name].kernel is not None
        for dtype in DTYPES
        for compute_capability in PTX_VERSIONS
    ]


def compiled_row(name: str, dtype: str, compute_capability: str) -> Row:
    """A kernel for one compute capability, at the sizes of a full frame."""
    kernel = OPS[name].kernel
    assert kernel is not None
    compiled = compile_kernel(kernel, OPS[name].full_frame(DTYPES[dtype]), compute_capability)
    return {
        "op": name,
        "dtype": dtype,
        "compute_capability": compute_capability,
        "ptx_version": compiled.ptx_version,
        "ptx_sha256": sha256_bytes(compiled.ptx.encode()),
        "cubin_bytes": len(compiled.cubin),
        "grid": compiled.call.grid,
        "threads": compiled.threads,
        "shared_bytes": compiled.shared_bytes,
        "registers": compiled.registers,
        "spilled_bytes": compiled.spilled_bytes,
    }


def cost_rows(names: list[str]) -> list[Row]:
    """One row per operator and type: body beside kernel."""
    return [cost_row(name, dtype) for name in names for dtype in DTYPES]


def cost_row(name: str, dtype: str) -> Row:
    """Memory and traffic of one call at a full frame."""
    args = OPS[name].full_frame(DTYPES[dtype])
    body, kernel = body_cost(OPS[name], args), kernel_cost(OPS[name], args)
    return {"op": name, "dtype": dtype, "body": megabytes(body), "kernel": megabytes(kernel)}


def megabytes(cost: Cost) -> dict[str, float]:
    """In 1e6 bytes, to three digits behind the point."""
    return {"peak_mb": round(cost.peak_bytes / 1e6, 3), "moved_mb": round(cost.moved_bytes / 1e6, 3)}


def table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Rows in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def page(compiled: list[Row], costs: list[Row]) -> str:
    """Both tables with what they mean."""
    import triton

    targets = list(PTX_VERSIONS)
    per_kernel: dict[tuple[str, str], dict[str, Row]] = {}
    for row in compiled:
        per_kernel.setdefault((row["op"], row["dtype"]), {})[row["compute_capability"]] = row
    registers = [
        (
            *key,
            *(
                f"{r[t]['registers']}" + (f" ({r[t]['spilled_bytes']})" if r[t]["spilled_bytes"] else "")
                for t in targets
            ),
        )
        for key, r in per_kernel.items()
    ]
    memory = [
        (
            r["op"],
            r["dtype"],
            *(f"{r[face][what]:.1f}" for what in ("peak_mb", "moved_mb") for face in ("body", "kernel")),
        )
        for r in costs
    ]
    return PAGE.format(
        triton=triton.__version__,
        registers=table(("kernel", "type", *targets), registers),
        memory=table(
            ("operator", "type", "peak MB, body", "peak MB, kernel", "moved MB, body", "moved MB, kernel"), memory
        ),
    )


PAGE = """# Kernels

Made by `python -m benchmarks.kernels`. Nothing here was run on a GPU.

## Registers per thread

By compute capability, at the sizes of a full frame, Triton {triton}, PTX in the version that the oldest driver
for that GPU takes. In brackets the bytes per thread that spill, where any do.

{registers}

## Memory of one call at a full frame

Counted on shapes. "Peak" is the most that inputs, answer and everything between need at once; "moved" is what is
read and written. Every node of a body reads its inputs and writes its outputs in memory, as if nothing were fused;
shapes and constants are left out. A kernel is counted as reading each input once and writing its answer once: what
it reads again is expected in caches.

{memory}
"""


def main() -> int:
    """Compile and count; returns 1 if a kernel spills on 8.7 or 9.0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(OPS))
    arguments = parser.parse_args()
    compiled, costs = compiled_rows(arguments.only), cost_rows(arguments.only)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("compiled", compiled), ("costs", costs)):
        (arguments.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (arguments.out / "README.md").write_text(page(compiled, costs))
    spilling = {r["op"] for r in compiled if r["spilled_bytes"] and r["compute_capability"] in ("8.7", "9.0")}
    print(f"{len(compiled)} kernels compiled; spilling on 8.7 or 9.0: {', '.join(sorted(spilling)) or 'none'}")
    return int(bool(spilling))


if __name__ == "__main__":
    sys.exit(main())
