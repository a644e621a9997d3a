"""Every network of the zoo through export and TensorRT-RTX, and what that costs: one row per network and size.

Run: python -m benchmarks.zoo --out benchmarks/results/cpu-2core/zoo.json [--only NAME ...] [--data DATA] [--redo]
It also writes the rows as a table (zoo.md beside zoo.json), and roadseg/zoo.json for `roadseg models`.

Weights are random, batch norms have the statistics of frames of DATA, disturbed. At half frame the model is
compared with PyTorch on such frames; at full frame it is parsed and built. A model with custom operators is run at
full frame too, by onnx and onnxruntime alone, and compared on one frame. Each row has its own process, hence its
own peak memory; rows that the file already has are kept, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roadseg import engines
from roadseg.export.check import check_structure, compare_with_torch, parser_messages
from roadseg.export.model import OPSET, passes
from roadseg.export.ops import OPS, flop_formulas
from roadseg.export.trace import trace
from roadseg.runtime import ModelSpec, Size
from roadseg.runtime.backends.torch import Normalise, TensorNet
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, SPEC_KEY, save_onnx, serialise, set_metadata
from roadseg.runtime.pixels import fit
from roadseg.train import MODELS, open_data
from roadseg.train.models import randomise
from roadseg.zoo import MEASURED_FILE, condense, count_parameters

HALF: Size = (512, 1024)
FULL: Size = (1024, 2048)
COMPUTE_CAPABILITY = "8.6"
CONDENSED = Path(__file__).parents[1] / "roadseg" / MEASURED_FILE
Frame = npt.NDArray[np.uint8]
FRAMES = 2
"""On which a model is compared with PyTorch."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One network at one size."""

    network: str
    size: Size
    params: int
    """Of what runs at inference."""
    aux_params: int
    """Of the heads that only training needs."""
    gmac: float
    """Multiply-adds of convolutions and matrix products, in 1e9."""
    nodes_traced: int
    """As torch's exporter wrote them."""
    nodes: int
    """After the passes."""
    ops: dict[str, int]
    """Nodes by type, most frequent first; a call of a custom operator is one."""
    refused: tuple[str, ...]
    """What TensorRT-RTX's parser does not take."""
    agreement: float | None
    """Share of pixels with PyTorch's label; None where it was not compared."""
    alone: dict[str, float] | None
    """How long one frame took in ONNX Runtime, and the peak memory of a process with nothing else, in MiB, once
    onnx had nothing against the file; None where that was not tried."""
    export_s: float
    build_s: float
    plan_mb: float
    peak_mb: float
    """Peak memory on the host of the process that exported and built, in MiB, with PyTorch in it."""


def measure(name: str, size: Size, data: str) -> Row:
    """Export, compare at half frame, and build."""
    import tensorrt_rtx as trt

    size = MODELS[name].sizes.nearest(size)
    net = MODELS[name]().eval()
    spec = ModelSpec(name, *size, align_corners=bool(getattr(net, "align_corners", False)))
    frames = [fit(sample.frame, spec) for sample in islice(open_data(data, "val"), FRAMES)]
    randomise(net, small_images(spec, frames))
    begun = time.perf_counter()
    traced = trace(net, spec, 1, OPSET)
    nodes_traced = len(traced.graph)
    for apply in passes(spec):
        traced, _ = apply(traced)
    model = check_structure(ir.to_proto(traced))
    export_s = time.perf_counter() - begun
    set_metadata(model, {SPEC_KEY: spec.to_json(), PROVENANCE_KEY: "{}", PRECISION_KEY: "fp32"})
    agreement, alone = None, None
    full = size[0] * size[1] >= FULL[0] * FULL[1]
    if not full:
        agreement = compare_with_torch(net, spec, serialise(model), frames, 1).agreement
    with tempfile.TemporaryDirectory() as folder:
        onnx_file, plan = Path(folder) / "model.onnx", Path(folder) / "model.plan"
        save_onnx(onnx_file, model)
        begun = time.perf_counter()
        engines.build(onnx_file, plan, flavour="rtx", compute_capability=COMPUTE_CAPABILITY)
        build_s = time.perf_counter() - begun
        plan_mb = plan.stat().st_size / 2**20
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if full and model.functions:
            labels, alone = run_alone(onnx_file, frames[:1], Path(folder))
            agreement = agreement_with(net, spec, frames[:1], labels)
    params, aux_params = count_parameters(name)
    return Row(
        network=name,
        size=size,
        params=params,
        aux_params=aux_params,
        gmac=count_gmac(name, size),
        nodes_traced=nodes_traced,
        nodes=len(model.graph.node),
        ops=dict(collections.Counter(node.op_type for node in model.graph.node).most_common()),
        refused=tuple(parser_messages(model, trt, "TensorRT-RTX").values()),
        agreement=agreement,
        alone=alone,
        export_s=round(export_s, 1),
        build_s=round(build_s, 1),
        plan_mb=round(plan_mb, 1),
        peak_mb=round(peak_mb),
    )


def run_alone(
    onnx_file: Path, frames: list[Frame], folder: Path
) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
    """Labels of a model that knows nothing of roadseg, and what they took."""
    given, answered = folder / "frames.npy", folder / "labels.npy"
    np.save(given, np.stack(frames))
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-m", "benchmarks.onnx_alone", str(onnx_file), str(given), str(answered), threads]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return np.load(answered), json.loads(done.stdout)


def agreement_with(net: nn.Module, spec: ModelSpec, frames: list[Frame], labels: npt.NDArray[np.uint8]) -> float:
    """Share of pixels to which PyTorch gives these labels."""
    with torch.inference_mode():
        logits = TensorNet(net, spec)(Normalise(spec)(torch.from_numpy(np.stack(frames))))
    same: float = (logits.argmax(1) == torch.from_numpy(labels)).double().mean().item()
    return same


def small_images(spec: ModelSpec, frames: list[Frame]) -> torch.Tensor:
    """Two different frames as the network takes them, `(2, 3, h, w)` of about 256x512 pixels."""
    size = MODELS[spec.name].sizes.nearest((256, 512))
    images = Normalise(spec)(torch.from_numpy(np.stack([frames[0], frames[-1][:, ::-1]])))
    return torch.nn.functional.interpolate(images, size, mode="bilinear")


def count_gmac(name: str, size: Size) -> float:
    """Multiply-adds of one frame in 1e9, counted on shapes alone."""
    with torch.device("meta"):
        net = MODELS[name]().eval()
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter, torch.no_grad():
            net(torch.empty(1, 3, *size))
    return counter.get_total_flops() / 2e9


def main() -> int:
    """Measure what the file does not have yet; returns 1 if a network failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    parser.add_argument("--data", default="scenes:count=2")
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--row", nargs=3, metavar=("NAME", "ROWS", "COLUMNS"), help="print one row as JSON")
    arguments = parser.parse_args()
    if arguments.row:
        name, rows, columns = arguments.row
        row = measure(name, (int(rows), int(columns)), arguments.data)
        print(json.dumps(dataclasses.asdict(row)))
        return 0
    return measure_all(arguments.only, arguments.out, arguments.data, arguments.redo)


def measure_all(names: list[str], out: Path, data: str, redo: bool) -> int:
    """Measure every network at both sizes, and write the file after each."""
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    for name, size in itertools.product(names, (HALF, FULL)):
        legal = list(MODELS[name].sizes.nearest(size))
        old = [row for row in rows if row["network"] == name and row["size"] == legal]
        if redo or not old or "error" in old[0]:
            rows = [row for row in rows if row not in old] + [measure_apart(name, size, data)]
            print(f"{name} {legal}: {rows[-1].get('error', 'done')}", flush=True)
            write_rows(rows, out, data)
    return int(any("error" in row for row in rows))


def write_rows(rows: list[dict[str, Any]], out: Path, data: str) -> None:
    """Write the study in the registry's order, and what `roadseg models` needs of it."""
    order = list(MODELS)
    ordered = sorted(rows, key=lambda row: (order.index(row["network"]), row["size"]))
    study = {"conditions": conditions(data), "rows": ordered}
    out.write_text(json.dumps(study, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(study))
    CONDENSED.write_text(json.dumps(condense(study), indent=1) + "\n")


def table(study: dict[str, Any]) -> str:
    """The rows in Markdown."""
    about = study["conditions"]
    lines = [
        f"TensorRT-RTX {about['tensorrt_rtx']} for compute capability {about['compute_capability']}, "
        f"PyTorch {about['torch']}, ONNX Runtime {about['onnxruntime']}, FP32, {about['data']} frames, "
        f"{about['threads']} thread(s) of a CPU with {about['cores']} cores. "
        "Made by `python -m benchmarks.zoo`.",
        "",
        "A call of a custom operator counts as one node; the function behind it is in the same file. Models of a "
        "full frame that have such passed ONNX's full check, and ran on one frame in a process of their own, with "
        "ONNX Runtime and nothing of roadseg: seconds, and MB at its peak.",
        "",
        "| network | size | params M | GMAC | nodes traced | nodes | custom operators | refused by TensorRT-RTX "
        "| agreement | export s | build s | plan MB | peak host MB | run s | run MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(table_row(row) for row in study["rows"]),
    ]
    return "\n".join(lines) + "\n"


def table_row(row: dict[str, Any]) -> str:
    """One row in Markdown."""
    size = f"{row['size'][0]}x{row['size'][1]}"
    if "error" in row:
        return f"| {row['network']} | {size} | {row['error']} |"
    agreement = "" if row["agreement"] is None else f"{row['agreement']:.6f}"
    refused = "; ".join(row["refused"]) or "none"
    millions, gmac, peak = f"{row['params'] / 1e6:.2f}", f"{row['gmac']:.1f}", round(row["peak_mb"])
    nodes = (row["nodes_traced"], row["nodes"], custom_operators(row["ops"]))
    costs = (row["export_s"], row["build_s"], row["plan_mb"], peak)
    alone = row.get("alone") or {"seconds": "", "peak_mb": ""}  # a kept row may be older than this column
    cells = (row["network"], size, millions, gmac, *nodes, refused, agreement, *costs, *alone.values())
    return "| " + " | ".join(map(str, cells)) + " |"


def custom_operators(ops: dict[str, int]) -> str:
    """Those among node types, with how often they are called."""
    return ", ".join(f"{count} {name}" for name, count in ops.items() if name in OPS)


def measure_apart(name: str, size: Size, data: str) -> dict[str, Any]:
    """A row made in a process of its own; with `error` in place of figures if that failed."""
    command = [sys.executable, "-m", "benchmarks.zoo", "--out", "-", "--data", data, "--row", name]
    done = subprocess.run([*command, *map(str, size)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row
    said = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    return {"network": name, "size": list(MODELS[name].sizes.nearest(size)), "error": said[0]}


def conditions(data: str) -> dict[str, str]:
    """What the figures depend on."""
    import onnxruntime
    import tensorrt_rtx

    return {
        "data": data.partition(":")[0],
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "tensorrt_rtx": tensorrt_rtx.__version__,
        "compute_capability": COMPUTE_CAPABILITY,
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }


if __name__ == "__main__":
    sys.exit(main())
