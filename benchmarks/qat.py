"""What fine-tuning gives back of the mIoU that INT8 costs.

Run: python -m benchmarks.qat camvid:PATH --out FILE [--work FOLDER]

Fast-SCNN's shipped weights at 360x480, calibrated by entropy on 64 frames of `train`, tuned on all 367 of it as
`roadseg finetune` does unless told otherwise, measured on all of `val` in ONNX Runtime on the CPU, against the
FP32 model. Writes every figure as JSON, and a table of them beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import torch

from roadseg import calib
from roadseg.calib import FinetuneReport, TunedDetails
from roadseg.exporting import export_network
from roadseg.runtime import Dataset, Segmenter, compare, read_manifest, write_atomically
from roadseg.train import open_data

from .repair import SIZE, figures

CONDITIONS = {
    "network": "Fast-SCNN, shipped weights camvid, 360x480",
    "frames": "CamVid, 64 of train for ranges, all 367 for tuning, all of val to measure",
    "software": f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, on a CPU",
}


def study(data: str, folder: Path) -> dict[str, Any]:
    """What INT8 makes of the FP32 model, and of the same once it is tuned; `folder` keeps the models."""
    train, val = open_data(data, "train"), open_data(data, "val")
    exported, ranges = folder / "m.onnx", folder / "m.ranges"
    if not ranges.exists():
        export_network("fastscnn", "camvid", exported, size=SIZE)
        calib.calibrate(exported, train, out=ranges)
    tuned = calib.finetune(exported, ranges, train, out=folder / "tuned.onnx")
    reference = Segmenter.open(exported)
    rows = []
    for name, model, scales in (("entropy", exported, ranges), ("fine-tuned", tuned.path, tuned.ranges)):
        written = calib.quantize(model, "int8", ranges=scales, out=folder / "int8.onnx")
        row = {"model": f"INT8, {name}"} | measure(reference, written.path, val)
        rows.append(row | {"mac_share": written.mac_share, "float_layers": sorted(written.kept)})
    return {"conditions": CONDITIONS, "tuning": describe(tuned), "rows": rows}


def describe(tuned: FinetuneReport) -> dict[str, Any]:
    """How a model was tuned, and how its loss fell."""
    settings = read_manifest(tuned.ranges, "ranges").details_as(TunedDetails).tuning
    return msgspec.to_builtins(settings) | {
        "images": tuned.images,
        "steps": tuned.steps,
        "losses": list(tuned.losses),
    }


def measure(reference: Segmenter, candidate: Path, val: Dataset) -> dict[str, Any]:
    """What a model loses against the reference."""
    return figures(compare(reference, Segmenter.open(candidate), val).as_json(budget=1.0))


def page(found: dict[str, Any]) -> str:
    """The table of a study, with its conditions."""
    conditions = "; ".join(f"{key}: {value}" for key, value in found["conditions"].items())
    tuning = ", ".join(f"{key} {found['tuning'][key]}" for key in ("epochs", "batch", "rate", "seed", "steps"))
    losses = ", ".join(f"{loss:.4f}" for loss in found["tuning"]["losses"])
    head = "| model | mIoU | lost, with 95 % interval | pixels as in FP32, % | MACs in INT8, % |"
    rows = "\n".join(line(row) for row in found["rows"])
    reference = found["rows"][0]["miou_reference"]
    made = f"FP32 has {reference:.2f} mIoU. Made by `python -m benchmarks.qat`; {conditions}"
    return f"{made}; tuned with {tuning}, mean loss by epoch {losses}.\n\n{head}\n|---|---|---|---|---|\n{rows}\n"


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    low, high = row["ci95"]
    lost = f"{row['miou_drop']:.2f} ({low:.2f} to {high:.2f})"
    ends = f"{row['pixel_agreement']:.2f} | {100 * row['mac_share']:.2f} |"
    return f"| {row['model']} | {row['miou_candidate']:.2f} | {lost} | {ends}"


def main() -> None:
    """Run the study and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="camvid:PATH")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--work", type=Path, help="Folder of models, where a run that was interrupted goes on.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = study(arguments.data, arguments.work or Path(folder))
    write_atomically(arguments.out, json.dumps(found, indent=1).encode() + b"\n")
    write_atomically(arguments.out.with_suffix(".md"), page(found).encode())


if __name__ == "__main__":
    main()
