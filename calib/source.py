"""The models that calibration and quantisation begin with, and those that are repaired afterwards."""

from __future__ import annotations

from pathlib import Path

import onnx

from roadseg.runtime import CalibrationError, sha256_file
from roadseg.runtime.onnxfile import PRECISION_KEY, load_onnx, metadata, onnx_spec

from .graph import lift_constants
from .provenance import provenance

UNROUNDED = "unrounded_onnx"
"""Role, in the provenance of a model with weights rounded anew, of the one it was made from."""
UNCORRECTED = "uncorrected_onnx"
"""Role, in the provenance of a model with corrected biases, of the one it was made from."""


def load_float_model(path: Path) -> onnx.ModelProto:
    """Read a model that is to be calibrated or typed.

    Raises:
        ArtifactError: if it cannot be read, or holds no ModelSpec.
        CalibrationError: if it is typed already.
    """
    model = load_onnx(path)
    onnx_spec(model, path)
    precision = metadata(model).get(PRECISION_KEY, "fp32")
    if precision != "fp32":
        raise CalibrationError(
            f"{path} is {precision.upper()} already; calibrate and quantize take the FP32 model that export wrote."
        )
    lift_constants(model)
    return model


def load_quantized(path: Path, model: Path) -> onnx.ModelProto:
    """Read the INT8 model that was made from the float32 one at `model`.

    Raises:
        ArtifactError: if it cannot be read.
        CalibrationError: if it is not INT8, or of another model.
    """
    quantized = load_onnx(path)
    precision = metadata(quantized).get(PRECISION_KEY, "unknown")
    if precision != "int8":
        raise CalibrationError(
            f"{path} is {precision.upper()}; only what `quantize` made as INT8 can be repaired."
        )
    if provenance(quantized).get("onnx") != sha256_file(model):
        raise CalibrationError(f"{path} was not made from {model}. Quantize {model} again, or give the right one.")
    return quantized
