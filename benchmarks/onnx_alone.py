"""A model as somebody has it who has onnx and onnxruntime, and nothing of ours: checked, and run on one frame.

Run: python -m benchmarks.onnx_alone MODEL FRAMES LABELS THREADS
FRAMES is what the model takes, as .npy, and LABELS where its answer is written. Prints the figures as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main(model: str, frames: str, labels: str, threads: int) -> None:
    """Run the model, note time and memory, and check it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: np.load(frames)}
    begun = time.perf_counter()
    (answer,) = session.run(None, feeds)
    seconds = time.perf_counter() - begun
    np.save(labels, answer)
    figures = {"seconds": round(seconds, 1), "peak_mb": peak_mb()}
    onnx.checker.check_model(model, full_check=True)  # raises if the file is not valid
    print(json.dumps(figures))


def peak_mb() -> int:
    """Most memory of this process so far, in MiB.

    Linux counts it anew for a program; what `getrusage` tells includes the process that started it.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(status["VmHWM"].split()[0]) / 1024)


if __name__ == "__main__":
    model, frames, labels, threads = sys.argv[1:]
    main(model, frames, labels, int(threads))
