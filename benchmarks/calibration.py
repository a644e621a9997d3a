"""What calibration of the shipped Fast-SCNN costs by the number of images, and what each method keeps of its mIoU.

Run: python -m benchmarks.calibration --data camvid:PATH --out benchmarks/results/cpu-2core/calibration.json

Ranges come from `train`, mIoU from `val`; 64 images where methods are compared.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from roadseg.calib import METHODS

COUNTS = (64, 367)
"""Of images; 367 is all of CamVid's `train`."""
KEPT = ("miou_reference", "miou_candidate", "miou_drop", "ci95", "pixel_agreement", "frames")
"""Of what parity tells."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    """Largest resident set of the process, PyTorch's and ONNX Runtime's libraries among it."""


def run(*arguments: object) -> tuple[Any, Cost]:
    """Run a command of roadseg; returns what it printed as JSON, and what it took.

    Raises:
        subprocess.CalledProcessError: if it failed.
    """
    command = [sys.executable, "-m", "roadseg", *map(str, arguments), "--json"]
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as printed, subprocess.Popen(command, stdout=printed) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        printed.seek(0)
        # Linux counts the resident set in kibibytes.
        return json.load(printed), Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure_costs(model: Path, data: str) -> list[dict[str, Any]]:
    """Time and memory of the entropy method by the number of images, and of all methods in one pass."""
    rows = []
    for method, count in [*(("entropy", count) for count in COUNTS), (",".join(METHODS), COUNTS[-1])]:
        out = model.with_name("cost.ranges")
        _, cost = run("calibrate", model, "--data", data, "--count", count, "--method", method, "--out", out)
        rows.append({"method": method, "images": count, **dataclasses.asdict(cost)})
        print(rows[-1], flush=True)
    return rows


def measure_methods(model: Path, data: str) -> list[dict[str, Any]]:
    """Parity with PyTorch of the INT8 models by all methods, from the same images."""
    settings = ("--count", COUNTS[0], "--method", ",".join(METHODS), "--out", model.with_suffix(".ranges"))
    reports, _ = run("calibrate", model, "--data", data, *settings)
    rows = []
    for method, report in reports.items():
        typed = model.with_name(f"{method}.onnx")
        run("quantize", model, "--precision", "int8", "--rest", "fp32", "--ranges", report["path"], "--out", typed)
        parity, _ = run("parity", "camvid", typed, "--data", data, "--split", "val", "--budget", 100)
        rows.append({"method": method, "images": report["images"], **{key: parity[key] for key in KEPT}})
        print(rows[-1], flush=True)
    return rows


def conditions() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {name: version(name) for name in ("onnxruntime", "torch", "numpy")}
    return {"cores": os.cpu_count(), "python": platform.python_version(), **versions}


def main() -> int:
    """Measure both, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="CamVid, as camvid:PATH")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "m.onnx"
        run("export", "--net", "fastscnn", "--weights", "camvid", "--size", "360x480", "--out", model)
        costs = measure_costs(model, arguments.data)
        methods = measure_methods(model, arguments.data)
    result = {"conditions": conditions(), "costs": costs, "methods": methods}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
