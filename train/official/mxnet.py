"""MXNet's `.params` files, which `mx.nd.save` and `mx.model.save_checkpoint` write.

As src/ndarray/ndarray.cc of apache/mxnet has it, all numbers little-endian:

    file    u64 0x112, u64 0, u64 how many arrays, the arrays, u64 how many names, the names
    name    u64 how many bytes, the bytes
    array   u32 version, [i32 storage, from the second on,] shape, i32 device, i32 its index, i32 type, the values
    shape   u32 how many axes, i64 each

Before there were versions, the number of axes stood in place of the version, and each was u32.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch

from roadseg.runtime import ArtifactError, CheckpointError

from .source import Weights

LIST_MAGIC = 0x112
FIRST, SECOND, THIRD = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""Versions of an array."""
DENSE = 0
"""The storage that is no sparse one."""
TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "|u1", 4: "<i4", 5: "|i1", 6: "<i8"}
"""numpy's names by mshadow's type flags."""
MOST_AXES = 8


def read_params(path: Path) -> Weights:
    """The arrays of a `.params` file by name, with the "arg:" or "aux:" that `save_checkpoint` puts before it.

    Raises:
        CheckpointError: if the file was cut short or changed, or holds anything but named dense arrays.
        ArtifactError: if there is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist.")
    reader = Reader(path)
    if reader.numbers("Q") != (LIST_MAGIC,):
        raise reader.refusal("begins otherwise than MXNet's lists of arrays do")
    reader.numbers("Q")  # reserved
    arrays = [reader.array() for _ in range(reader.count())]
    names = [reader.name() for _ in range(reader.count())]
    if len(names) != len(arrays) or len({*names}) != len(names):
        raise reader.refusal(f"holds {len(arrays)} arrays under {len({*names})} names")
    if reader.rest:
        raise reader.refusal(f"goes on for {len(reader.rest)} bytes behind its last name")
    return dict(zip(names, arrays, strict=True))


class Reader:
    """Takes one thing after the other from a file; no length is believed beyond the file's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rest = memoryview(path.read_bytes())
        """What was not taken yet."""

    def refusal(self, reason: str) -> CheckpointError:
        """What to raise, with the reason."""
        return CheckpointError(f"{self.path} {reason}. Give the .params file that mx.model.save_checkpoint wrote.")

    def take(self, length: int) -> memoryview:
        """The next `length` bytes."""
        if length > len(self.rest):
            raise self.refusal(f"was cut short: {length} bytes should follow where {len(self.rest)} do")
        taken, self.rest = self.rest[:length], self.rest[length:]
        return taken

    def numbers(self, kinds: str) -> tuple[int, ...]:
        """The next integers, of struct's `kinds`."""
        return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}")))

    def count(self) -> int:
        """How many things follow."""
        return self.numbers("Q")[0]

    def name(self) -> str:
        """A name."""
        try:
            return str(self.take(self.count()), "utf-8")
        except UnicodeDecodeError as error:
            raise self.refusal("holds a name that is not text") from error

    def array(self) -> torch.Tensor:
        """An array."""
        shape = self.shape()
        *_, flag = self.numbers("iii")  # behind the device
        if flag not in TYPES:
            raise self.refusal(f"holds an array of type {flag}; known are {', '.join(map(str, TYPES))}")
        dtype = np.dtype(TYPES[flag])
        values = np.frombuffer(self.take(math.prod(shape) * dtype.itemsize), dtype)
        return torch.from_numpy(values.reshape(shape).copy())

    def shape(self) -> tuple[int, ...]:
        """What stands in front of an array's device."""
        (version,) = self.numbers("I")
        if version in (SECOND, THIRD) and self.numbers("i") != (DENSE,):
            raise self.refusal("holds a sparse array, which no network here has")
        versioned = version in (FIRST, SECOND, THIRD)
        axes = self.numbers("I")[0] if versioned else version
        if axes > MOST_AXES:
            raise self.refusal(f"holds an array of {axes} axes")
        shape = self.numbers(f"{axes}{'q' if versioned else 'I'}")
        if min(shape, default=int(version == THIRD)) < 1:
            raise self.refusal("holds an array without values")
        return shape
