"""INT8 by other people's tools: reads an ONNX model and calibration inputs, writes what a tool makes of them.

Run: PYTHON benchmarks/peers_int8.py modelopt MODEL INPUTS.npy OUT [--settings JSON]

It imports nothing of roadseg, so that PYTHON may be that of an environment with the tool and nothing else;
`python -m benchmarks.int8` runs it. Settings are the tool's own arguments; without any it has its defaults. Prints
the versions of what took part, as a line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

HELD_AT_ONCE = 8
"""Inputs whose tensors ONNX Runtime's calibrators may hold at a time; those of 64 frames take gigabytes."""


class Inputs:
    """A CalibrationDataReader of ONNX Runtime (onnxruntime/quantization/calibrate.py) over an array."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name = name
        self.values = values
        self.rest: Iterator[np.ndarray] = iter(values)

    def __len__(self) -> int:
        return len(self.values)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these."""
        self.rest = iter(self.values[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next, `(1, ...)`; None behind the last."""
        value = next(self.rest, None)
        return None if value is None else {self.name: value[None]}


def quantize_with_onnxruntime(model: Path, inputs: np.ndarray, out: Path, settings: dict[str, Any]) -> None:
    """Static quantisation behind `quant_pre_process`, as ONNX Runtime's documentation has it.

    Args:
        model: float32 ONNX file with one input.
        inputs: `(N, ...)`, what that takes, one by one.
        out: the ONNX file to write.
        settings: arguments of `quantize_static`; a `calibrate_method` by name.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(Inputs, CalibrationDataReader):
        """The same, as `quantize_static` asks for it."""

    method = CalibrationMethod[settings.pop("calibrate_method", "MinMax")]
    # By its name for MinMax only, but all methods gather what they have seen in parts.
    options = {"CalibStridedMinMax": math.gcd(len(inputs), HELD_AT_ONCE), **settings.pop("extra_options", {})}
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(str(model), prepared)
        reader = Reader(onnx.load(prepared).graph.input[0].name, inputs)
        quantize_static(prepared, str(out), reader, calibrate_method=method, extra_options=options, **settings)


def quantize_with_modelopt(model: Path, inputs: np.ndarray, out: Path, settings: dict[str, Any]) -> None:
    """NVIDIA ModelOpt's quantisation of ONNX models, on the CPU; arguments as above, of `quantize`."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(model),
        quantize_mode="int8",
        calibration_data=inputs,
        calibration_eps=["cpu"],
        output_path=str(out),
        **settings,
    )


TOOLS: dict[str, Callable[[Path, np.ndarray, Path, dict[str, Any]], None]] = {
    "onnxruntime": quantize_with_onnxruntime,
    "modelopt": quantize_with_modelopt,
}
PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "modelopt": ("nvidia-modelopt", "onnxruntime", "onnx", "torch"),
}
"""Whose versions may change what a tool writes."""


def main() -> None:
    """Quantise one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", type=Path, help=".npy, (N, ...)")
    parser.add_argument("out", type=Path)
    parser.add_argument("--settings", type=json.loads, default={}, help="The tool's arguments, as JSON.")
    arguments = parser.parse_args()
    TOOLS[arguments.tool](arguments.model, np.load(arguments.inputs), arguments.out, arguments.settings)
    print(json.dumps({name: importlib.metadata.version(name) for name in PACKAGES[arguments.tool]}))


if __name__ == "__main__":
    main()
