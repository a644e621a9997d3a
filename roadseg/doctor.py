"""What this machine can do, and what to install for the rest."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform

from roadseg import __version__
from roadseg.runtime import EngineError
from roadseg.runtime.cuda import find_gpu

TASKS = {
    "train": ("train", ("torch", "cv2", "safetensors")),
    "export": ("export", ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "safetensors")),
    "calibrate": ("quantize", ("onnx", "onnxruntime")),
    "quantize": ("quantize", ("onnx", "onnxruntime")),
    "kernels": ("export,kernels", ("torch", "onnx", "onnxscript", "triton")),
    "build --flavour rtx": ("rtx", ("onnx", "tensorrt_rtx")),
    "build --flavour tensorrt": ("tensorrt", ("onnx", "tensorrt", "pycuda")),
    "run": ("video", ("av", "cv2", "onnxruntime")),
    "report": ("report", ("jinja2", "cv2")),
}
"""Per command: the extra that brings what it needs, and the modules it imports."""

DISTRIBUTIONS = {"cv2": "opencv-python"}
"""Of modules that are called otherwise than what pip installs."""


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was found."""

    roadseg: str
    python: str
    machine: str
    cores: int
    gpu: str
    """The GPU, or why none can be used."""
    versions: dict[str, str]
    """Of each library that is installed."""
    works: tuple[str, ...]
    """Commands whose libraries are all here."""
    install: dict[str, str]
    """For each other command, what to type."""


def examine() -> Examination:
    """Look at this machine; nothing is imported that is not installed, and nothing is changed."""
    modules = sorted({module for _, needed in TASKS.values() for module in needed})
    found = {module: version(module) for module in modules if importlib.util.find_spec(module)}
    missing = {task: extra for task, (extra, needed) in TASKS.items() if not set(needed) <= found.keys()}
    return Examination(
        roadseg=__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        gpu=describe_gpu(),
        versions=found,
        works=tuple(task for task in TASKS if task not in missing),
        install={task: f"pip install 'roadseg[{extra}]'" for task, extra in missing.items()},
    )


def version(module: str) -> str:
    """The installed version of what brings `module`, as pip knows it."""
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def describe_gpu() -> str:
    """The first GPU in a line, or why there is none."""
    try:
        gpu = find_gpu()
    except EngineError as error:
        return f"none: {error}"
    return f"{gpu.name}, compute capability {gpu.compute_capability}, driver for CUDA {gpu.driver}"
