"""The float32 model that calibration and quantisation begin with."""

from __future__ import annotations

from pathlib import Path

import onnx

from roadseg.runtime import CalibrationError
from roadseg.runtime.onnxfile import PRECISION_KEY, load_onnx, metadata, onnx_spec

from .graph import lift_constants


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
