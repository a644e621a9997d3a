"""Latencies that `roadseg.calib.cost` estimates beside those that others measured with TensorRT and published.

Run: python -m benchmarks.cost --out FILE

Batch 1 at 1024x2048; initial weights, since time depends on shapes and types alone. The published models end in
logits or labels of their own making, and their networks may differ from ours in heads, so a factor is that of all
of this together. Writes every figure as JSON, and a table of them beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from roadseg.calib.cache import Ranges
from roadseg.calib.cost import Cutting, Kernel
from roadseg.calib.fp16 import cast_to_fp16
from roadseg.calib.gpus import Gpu, find_gpu
from roadseg.calib.graph import Graph, lift_constants
from roadseg.calib.placement import place
from roadseg.calib.qdq import insert_qdq
from roadseg.export.check import check_structure
from roadseg.export.model import OPSET, passes
from roadseg.export.trace import trace
from roadseg.runtime import ModelSpec, write_atomically
from roadseg.train import MODELS

SIZE = (1024, 2048)
BISENET = "CoinCheung/BiSeNet tensorrt/README.md: A40, TensorRT 10.3"
SUPER_GRADIENTS = "super-gradients model_zoo.md: T4, TensorRT FP16, compute"


@dataclasses.dataclass(frozen=True)
class Published:
    """One latency that somebody measured."""

    network: str
    gpu: str
    precision: str
    ms: float
    source: str


PUBLISHED = (
    Published("bisenet_r18", "a40", "fp32", 1e3 / 112, BISENET),
    Published("bisenet_r18", "a40", "fp16", 1e3 / 239, BISENET),
    Published("bisenet_r18", "a40", "int8", 1e3 / 435, BISENET),
    Published("bisenetv2", "a40", "fp32", 1e3 / 103, BISENET),
    Published("bisenetv2", "a40", "fp16", 1e3 / 161, BISENET),
    Published("bisenetv2", "a40", "int8", 1e3 / 198, BISENET),
    Published("ddrnet23_slim", "t4", "fp16", 5.74, SUPER_GRADIENTS),
    Published("ddrnet23", "t4", "fp16", 12.74, SUPER_GRADIENTS),
)


def study() -> list[dict[str, Any]]:
    """A row for every published latency."""
    cut = {key: typed_kernels(*key) for key in {(row.network, row.precision) for row in PUBLISHED}}
    return [row_of(row, cut[row.network, row.precision]) for row in PUBLISHED]


def row_of(row: Published, kernels: list[Kernel]) -> dict[str, Any]:
    """A published latency with our estimate."""
    gpu = find_gpu(row.gpu)
    estimate = estimated_ms(kernels, gpu)
    figures = {"estimated_ms": round(estimate, 3), "factor": round(row.ms / estimate, 2), "kernels": len(kernels)}
    return {**dataclasses.asdict(row), "ms": round(row.ms, 2), **figures}


def estimated_ms(kernels: list[Kernel], gpu: Gpu) -> float:
    """Milliseconds of one frame."""
    return 1e3 * sum(kernel.seconds(gpu) for kernel in kernels)


def typed_kernels(network: str, precision: str) -> list[Kernel]:
    """What a network becomes in a precision."""
    model = exported(network)
    if precision == "fp16":
        cast_to_fp16(model)
    elif precision == "int8":
        insert_qdq(model, Ranges(dict.fromkeys(place(model).activations, 1.0), "EntropyCalibration2"))
    return Cutting(Graph(model)).kernels()


def exported(network: str) -> onnx.ModelProto:
    """A network as `roadseg export` writes it, with initial weights."""
    net = MODELS[network]().eval()
    spec = ModelSpec(network, *SIZE, align_corners=bool(getattr(net, "align_corners", False)))
    model = trace(net, spec, 1, OPSET)
    for apply in passes(spec):
        model, _ = apply(model)
    proto = check_structure(ir.to_proto(model))
    lift_constants(proto)
    return proto


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, with the spread of the factors."""
    lines = [
        f"| {r['network']} | {find_gpu(r['gpu']).name} | {r['precision'].upper()} | {r['ms']:.2f} | "
        f"{r['estimated_ms']:.2f} | {r['factor']:.2f} |"
        for r in rows
    ]
    factors = [r["factor"] for r in rows]
    return "\n".join(
        [
            f"Published over estimated: median {statistics.median(factors):.2f}, "
            f"{min(factors):.2f} to {max(factors):.2f}. Made by `python -m benchmarks.cost`; 1024x2048, batch 1.",
            "",
            "| network | GPU | precision | published, ms | estimated, ms | factor |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            "Sources: " + "; ".join(dict.fromkeys(r["source"] for r in rows)) + ".",
            "",
        ]
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rows = study()
    write_atomically(out, (json.dumps({"rows": rows}, indent=1) + "\n").encode())
    write_atomically(out.with_suffix(".md"), table(rows).encode())
    print(table(rows))


if __name__ == "__main__":
    main()
