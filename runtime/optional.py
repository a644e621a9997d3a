"""Optional libraries: imported where they are used, named with their extra where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import MissingDependencyError

EXTRAS = {
    "av": "video",
    "cv2": "train",
    "jinja2": "report",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "pycuda": "tensorrt",
    "safetensors": "train",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "torch": "train",
    "triton": "kernels",
}
"""The extra of setup.cfg that installs a module."""


def require(module: str, purpose: str) -> Any:
    """Import `module`, or say which extra brings it.

    Raises:
        MissingDependencyError: if it is not installed or fails to load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"{purpose} needs {module}, which cannot be imported here ({error}). {_advice(module, error)}"
        ) from error


def _advice(module: str, error: Exception) -> str:
    # One of our own modules has no extra, but what it could not import may have one.
    for name in (module, getattr(error, "name", None) or ""):
        extra = EXTRAS.get(name.partition(".")[0])
        if extra:
            return f"Install it with: pip install 'roadseg[{extra}]'"
    return "Install what it lacks."
