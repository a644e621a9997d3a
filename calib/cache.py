"""TensorRT's calibration cache: text that its INT8 builder, ModelOpt and our Q/DQ placement all read.

A first line `TRT-<version>-<calibrator>`, then a line `<tensor>: <hex>` for each tensor, where hex is the
big-endian float32 scale, range / 127. Source: NVIDIA ModelOpt, modelopt/onnx/quantization/calib_utils.py, and the
files that TensorRT's IInt8EntropyCalibrator2 writes.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from roadseg.runtime import ArtifactError, CalibrationError, Manifest, ModelSpec, require, write_with_manifest
from roadseg.runtime.artifacts import read_bytes

Calibrator = Literal["EntropyCalibration2", "MinMaxCalibration"]
"""A calibrator class of TensorRT, as the first line names it."""
CALIBRATORS: tuple[Calibrator, ...] = get_args(Calibrator)
TENSORRT_VERSION = 100300
"""TensorRT 10.3, of JetPack 6.1 and 6.2. TensorRT refuses a cache with another version than its own in the first
line; whoever hands the cache to one writes that line anew."""
INT8_MAX = 127


@dataclasses.dataclass(frozen=True)
class Ranges:
    """How far each tensor goes: it is quantised over [-amax, amax]."""

    amax: dict[str, float]
    """Largest magnitude by tensor, positive, in the tensor's own unit."""
    calibrator: Calibrator
    """The class that is to read them; it takes any, whatever they were found by."""

    def scale(self, tensor: str) -> np.float32:
        """The value of one quantisation step.

        Raises:
            CalibrationError: if the tensor has no range.
        """
        if tensor not in self.amax:
            raise CalibrationError(
                f'the ranges lack the tensor "{tensor}", which has to be quantised; calibrate the model again.'
            )
        scale: np.float32 = np.float32(self.amax[tensor] / INT8_MAX)
        return scale


def format_cache(ranges: Ranges, tensorrt_version: int = TENSORRT_VERSION) -> bytes:
    """The text of a calibration cache, tensors in the order of `ranges`."""
    lines = [f"TRT-{tensorrt_version}-{ranges.calibrator}"]
    lines += [f"{tensor}: {struct.pack('>f', ranges.scale(tensor)).hex()}" for tensor in ranges.amax]
    return ("\n".join(lines) + "\n").encode()


def parse_cache(text: bytes, name: str) -> Ranges:
    """The ranges in a calibration cache; formatting them again gives the same lines.

    Args:
        text: the file's content.
        name: of the file, for errors.

    Raises:
        ArtifactError: if the text is not a calibration cache, or a scale is not positive and finite.
    """
    try:
        first, *lines = text.decode().splitlines()
    except (UnicodeDecodeError, ValueError):
        first, lines = "", []
    header = re.fullmatch(r"TRT-\d+-(\w+)", first)
    calibrator = next((name for name in CALIBRATORS if header and header[1] == name), None)
    if calibrator is None:
        raise ArtifactError(
            f'{name} does not begin with "TRT-<version>-" and one of {", ".join(CALIBRATORS)}; '
            "it is not a calibration cache."
        )
    return Ranges(dict(_parse_line(line, name) for line in lines), calibrator)


def read_ranges(path: Path) -> Ranges:
    """The ranges in a calibration cache, ours or TensorRT's.

    Raises:
        ArtifactError: if it cannot be read or is not one.
    """
    return parse_cache(read_bytes(path), str(path))


def _parse_line(line: str, name: str) -> tuple[str, float]:
    match = re.fullmatch(r"(.+): ([0-9a-f]{8})", line)
    scale = struct.unpack(">f", bytes.fromhex(match[2]))[0] if match else float("nan")
    if match is None or not 0 < scale < float("inf"):
        raise ArtifactError(f"{name} has a line that is not a tensor and its positive scale: {line!r}.")
    # 24 bits times 7 bits is exact in float64, so dividing by 127 again gives the same scale.
    return match[1], scale * INT8_MAX


def save_ranges(
    out: Path, ranges: Ranges, spec: ModelSpec, *, inputs: dict[str, str], details: object, library: str
) -> str:
    """Write a calibration cache with its manifest; returns the SHA-256 of the cache.

    Args:
        out: the file to write.
        ranges: its content.
        spec: of the model that they are for.
        inputs: SHA-256 of what they were made from, by role; "onnx" is that model.
        details: a dataclass with what else the manifest tells.
        library: that computed them; the manifest names its version.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    manifest = Manifest(
        kind="ranges",
        file_sha256="",
        spec=spec,
        inputs=inputs,
        details=msgspec.to_builtins(details),
        versions={library: str(require(library, "making ranges").__version__)},
    )
    return write_with_manifest(out, format_cache(ranges), manifest).file_sha256
