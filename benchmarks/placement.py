"""Every network of the zoo in INT8: what the placement lint says of it, and whether TensorRT-RTX builds it.

Run: python -m benchmarks.placement --out benchmarks/results/cpu-2core/placement.json [--only NAME ...] [--redo]
It also writes the rows as a table, placement.md beside placement.json.

Weights are random, batch norms have the statistics of frames of DATA, disturbed; ranges are the largest magnitudes
on two frames. Where Q/DQ stands depends on neither. Each row has its own process; rows that the file already has
are kept, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from roadseg import engines
from roadseg.calib.graph import lift_constants
from roadseg.calib.lint import lint
from roadseg.calib.placement import place
from roadseg.calib.qdq import insert_qdq
from roadseg.calib.ranges import Collector
from roadseg.export.check import check_structure
from roadseg.export.model import OPSET, passes
from roadseg.export.trace import trace
from roadseg.runtime import BuildError, ModelSpec, Size
from roadseg.runtime.backends.torch import Normalise
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, SPEC_KEY, save_onnx, set_metadata
from roadseg.runtime.pixels import fit
from roadseg.train import MODELS, open_data
from roadseg.train.models import randomise

from .zoo import COMPUTE_CAPABILITY, FRAMES, Frame, conditions

SIZE: Size = (128, 256)
FLOAT_SIDES = ("input", "weights")
"""Sides by which a layer does not multiply 8-bit numbers."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One network."""

    network: str
    size: Size
    layers: int
    """Convolutions and matrix products, those of two computed tensors among them."""
    int8_layers: int
    mac_share: float
    """Of the layers' multiply-accumulate operations, those of 8-bit numbers; in [0, 1]."""
    findings: dict[str, dict[str, str]]
    """Cause by node, by side."""
    refused: str
    """What TensorRT-RTX says against the INT8 model; empty if it builds it."""


def measure(name: str, data: str) -> Row:
    """Export, calibrate, quantise, lint and build a network."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        size = write_int8(name, data, file)
        return row_of(name, size, file)


def write_int8(name: str, data: str, file: Path) -> Size:
    """Export, calibrate and quantise a network; returns the size it takes."""
    size = MODELS[name].sizes.nearest(SIZE)
    net = MODELS[name]().eval()
    spec = ModelSpec(name, *size, align_corners=bool(getattr(net, "align_corners", False)))
    frames = [fit(sample.frame, spec) for sample in islice(open_data(data, "val"), FRAMES)]
    randomise(net, Normalise(spec)(torch.from_numpy(np.stack(frames))))
    traced = trace(net, spec, 1, OPSET)
    for apply in passes(spec):
        traced, _ = apply(traced)
    save_onnx(file, quantized(check_structure(ir.to_proto(traced)), spec, frames))
    return size


def row_of(name: str, size: Size, file: Path) -> Row:
    """What lint and builder say of an INT8 model."""
    report = lint(file)
    findings: dict[str, dict[str, str]] = {}
    for finding in report.findings:
        findings.setdefault(finding.side, {})[finding.node] = finding.cause
    share = round(report.mac_share, 6)
    return Row(name, size, report.layers, report.int8_layers, share, findings, refusal_of(file))


def quantized(model: onnx.ModelProto, spec: ModelSpec, frames: list[Frame]) -> onnx.ModelProto:
    """A float32 model in INT8, with the ranges of `frames`."""
    lift_constants(model)
    collector = Collector(model, spec, place(model), ["minmax"])
    for frame in frames:
        collector.add(frame)
    insert_qdq(model, collector.ranges("minmax"))
    set_metadata(model, {SPEC_KEY: spec.to_json(), PROVENANCE_KEY: "{}", PRECISION_KEY: "int8"})
    return model


def refusal_of(file: Path) -> str:
    """What TensorRT-RTX says against a model; empty if it builds it."""
    try:
        plan = file.with_suffix(".plan")
        engines.build(file, plan, flavour="rtx", compute_capability=COMPUTE_CAPABILITY)
    except BuildError as error:
        return str(error)
    return ""


def main() -> int:
    """Measure what the file does not have yet; returns 1 if a network failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    parser.add_argument("--data", default="scenes:count=2")
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--row", metavar="NAME", help="print one row as JSON")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(dataclasses.asdict(measure(arguments.row, arguments.data))))
        return 0
    return measure_all(arguments.only, arguments.out, arguments.data, arguments.redo)


def measure_all(names: list[str], out: Path, data: str, redo: bool) -> int:
    """Measure every network, and write the file after each."""
    rows = {row["network"]: row for row in json.loads(out.read_text())["rows"]} if out.is_file() else {}
    for name in names:
        if redo or "error" in rows.get(name, {"error": "not measured"}):
            rows[name] = measure_apart(name, data)
            print(f"{name}: {rows[name].get('error', 'done')}", flush=True)
            write_rows([rows[known] for known in MODELS if known in rows], out, data)
    return int(any("error" in row for row in rows.values()))


def measure_apart(name: str, data: str) -> dict[str, Any]:
    """A row made in a process of its own; with `error` in place of figures if that failed."""
    command = [sys.executable, "-m", "benchmarks.placement", "--out", "-", "--data", data, "--row", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row
    said = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    return {"network": name, "error": said[0]}


def write_rows(rows: list[dict[str, Any]], out: Path, data: str) -> None:
    """Write the study, and its table beside it."""
    study = {"conditions": conditions(data), "rows": rows}
    out.write_text(json.dumps(study, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(study))


def table(study: dict[str, Any]) -> str:
    """The rows in Markdown."""
    about = study["conditions"]
    lines = [
        "The INT8 models of the zoo as `roadseg lint` reads them, built by TensorRT-RTX "
        f"{about['tensorrt_rtx']} for compute capability {about['compute_capability']} without a GPU. "
        f"PyTorch {about['torch']}, ONNX Runtime {about['onnxruntime']}; random weights, ranges of two frames of "
        f"{about['data']}. Made by `python -m benchmarks.placement`.",
        "",
        "Layers are convolutions and matrix products, those of two computed tensors among them; what the "
        "definitions of custom operators compute is not counted. A result that several operators read as float is "
        "counted with each. The names of the nodes are in placement.json.",
        "",
        "| network | size | layers | INT8 | INT8 share of MACs | float layers, and why "
        "| results of INT8 layers read as float, and by what | other findings | built |",
        "|---|---|---|---|---|---|---|---|---|",
        *(table_row(row) for row in study["rows"]),
    ]
    return "\n".join(lines) + "\n"


def table_row(row: dict[str, Any]) -> str:
    """One row in Markdown."""
    if "error" in row:
        return f"| {row['network']} | {row['error']} |"
    findings = row["findings"]
    floats = [cause for side in FLOAT_SIDES for cause in findings.get(side, {}).values()]
    others = {side: len(found) for side, found in findings.items() if side not in (*FLOAT_SIDES, "output")}
    cells = (
        row["network"],
        f"{row['size'][0]}x{row['size'][1]}",
        row["layers"],
        row["int8_layers"],
        f"{row['mac_share']:.4f}",
        counted(floats),
        counted([reader for cause in findings.get("output", {}).values() for reader in readers_in(cause)]),
        ", ".join(f"{count} {side}" for side, count in others.items()) or "none",
        row["refused"] or "yes",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def readers_in(cause: str) -> list[str]:
    """The types of the operators that read a layer's result as float; "output" for the model's own."""
    return sorted(set(re.findall(r'(\w+) "', cause)))


def counted(causes: list[str]) -> str:
    """Causes with how often each is met, most frequent first."""
    found = collections.Counter(causes).most_common()
    return "; ".join(f"{count} {cause}" for cause, count in found) or "none"


if __name__ == "__main__":
    sys.exit(main())
