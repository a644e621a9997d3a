"""Logits to labels of the frame's size: bilinear upsampling and argmax in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .kernel import Kernel, power_of_two
from .op import Attributes, Op, at_least_float

if TYPE_CHECKING:
    import triton.language as tl


def upsample_argmax(logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Labels of the bilinearly upsampled logits; of equal ones the lowest class.

    The interpolation is computed in FP32 whatever the logits are: rounding its results would make ties.

    Args:
        logits: `(N, C, h, w)`, FP16 or FP32, C at most 256.
        size: rows and columns of the labels.
        align_corners: whether the centres of corner pixels stay on the corners, as in `F.interpolate`.

    Returns:
        `(N, *size)` uint8.
    """
    # F.interpolate is no reference: how it rounds depends on a class's number, so that equal classes differ.
    maps = at_least_float(logits)
    for axis in (3, 2):
        low, high, share = neighbours(maps.shape[axis], size[axis - 2], align_corners, maps.device)
        share = share[:, None] if axis == 2 else share
        before = maps.index_select(axis, low)
        maps = before + (maps.index_select(axis, high) - before) * share
    return maps.argmax(dim=1).to(torch.uint8)


def neighbours(
    length: int, to_length: int, align_corners: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For each place of the result, the places before and after it in the source, and the weight of the latter."""
    offset = 0.0 if align_corners else 0.5
    places = torch.arange(to_length, dtype=torch.float32, device=device)
    places = ((places + offset) * step(length, to_length, align_corners) - offset).clamp(0, length - 1)
    low = places.long()
    return low, (low + 1).clamp(max=length - 1), places - low


BODY = """
    float_logits = Cast <to = 1> (logits)
    maps = Shape <start = 0, end = 2> (logits)
    pixels = Constant <value_ints: ints = @size> ()
    sizes = Concat <axis = 0> (maps, pixels)
    full = Resize <mode = "linear", coordinate_transformation_mode: string = @coordinates>
        (float_logits, , , sizes)
    best = ArgMax <axis = 1, keepdims = 0> (full)
    y = Cast <to = 2> (best)
"""


def to_attributes(size: Sequence[int], align_corners: bool) -> Attributes:
    """Arguments of `upsample_argmax` as the node has them."""
    return {"size": list(size), "coordinates": "align_corners" if align_corners else "half_pixel"}


def from_attributes(size: Sequence[int], coordinates: str) -> tuple[list[int], bool]:
    """`to_attributes`, undone."""
    return list(size), coordinates == "align_corners"


def upsample_argmax_kernel(  # type: ignore[no-untyped-def]
    logits, classes, rows, columns, to_rows, to_columns, labels,
    row_step: tl.constexpr, column_step: tl.constexpr, offset: tl.constexpr, lowest: tl.constexpr,
    per_row: tl.constexpr, first: tl.constexpr, parts: tl.constexpr, tall: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A part of the labels that are between the same two rows of logits, in a block of columns.

    What a class is between two columns is computed once for all `tall` rows. Those that belong to other rows of
    logits are left to these.
    """
    x = tl.program_id(0) * block + tl.arange(0, block)
    k = tl.program_id(1) // parts + lowest
    frame = tl.program_id(2)
    y = tl.floor(per_row * k + first).to(tl.int32) + tl.program_id(1) % parts * tall + tl.arange(0, tall)
    row = (y + offset) * row_step - offset
    mine = (tl.floor(row) == k) & (y >= 0) & (y < to_rows)
    top = tl.maximum(k, 0)
    below = tl.minimum(k + 1, rows - 1)
    down = tl.minimum(tl.maximum(row, 0.0), rows - 1) - top
    column = tl.minimum(tl.maximum((x + offset) * column_step - offset, 0.0), columns - 1)
    left = column.to(tl.int32)
    right = tl.minimum(left + 1, columns - 1)
    along = column - left
    upper = logits + (frame * classes * rows + top) * columns
    lower = logits + (frame * classes * rows + below) * columns
    best = tl.full([tall, block], float("-inf"), tl.float32)
    label = tl.zeros([tall, block], tl.int32)
    for c in range(classes):
        before = tl.load(upper + left).to(tl.float32)
        above = before + (tl.load(upper + right).to(tl.float32) - before) * along
        before = tl.load(lower + left).to(tl.float32)
        beneath = before + (tl.load(lower + right).to(tl.float32) - before) * along
        value = above[None, :] + (beneath - above)[None, :] * down[:, None]
        label = tl.where(value > best, c, label)
        best = tl.maximum(value, best)
        upper += rows * columns
        lower += rows * columns
    at = labels + (frame * to_rows + y[:, None]) * to_columns + x[None, :]
    tl.store(at, label.to(tl.uint8), mask=mine[:, None] & (x < to_columns)[None, :])


def launch(kernel: Any, logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Run the kernel."""
    n, classes, rows, columns = logits.shape
    labels = logits.new_empty((n, *size), dtype=torch.uint8)
    block = 128
    offset, lowest = (0.0, 0) if align_corners else (0.5, -1)
    per_row, first, most = rows_between(rows, size[0], align_corners)
    tall = min(8, power_of_two(most))
    parts = -(-most // tall)
    kernel[(-(-size[1] // block), (rows - lowest) * parts, n)](
        logits.contiguous(), classes, rows, columns, *size, labels,
        row_step=step(rows, size[0], align_corners), column_step=step(columns, size[1], align_corners),
        offset=offset, lowest=lowest, per_row=per_row, first=first, parts=parts, tall=tall, block=block,
    )  # fmt: skip
    return labels


def rows_between(length: int, to_length: int, align_corners: bool) -> tuple[float, float, int]:
    """Which rows of the result are between rows k and k + 1 of the source, or on the former.

    The first is where k is multiplied by the first of these numbers, the second is added, and the sum is rounded
    down; there are at most as many as the third says.
    """
    rows, to_rows = length - align_corners, to_length - align_corners
    if not rows or not to_rows:
        return 0.0, 0.0, to_length  # all are on the first
    if to_rows % rows == 0:
        whole = to_rows // rows
        # The step is rounded unless it is a power of two, and may take a row to the place before its own.
        return float(whole), 0.0 if align_corners else float(whole // 2), whole + bool(whole & (whole - 1))
    offset = 0.0 if align_corners else 0.5
    per_row = 1 / step(length, to_length, align_corners)
    # Rounding moves a row by one at most.
    return per_row, offset * per_row - offset - 1, math.ceil(per_row) + 3


def step(length: int, to_length: int, align_corners: bool) -> float:
    """Pixels of the source between two neighbours of the result."""
    if align_corners:
        return (length - 1) / (to_length - 1) if to_length > 1 else 0.0
    return length / to_length


def full_frame(dtype: torch.dtype) -> tuple[Tensor, list[int], bool]:
    """Logits at 1/8 of 1024x2048."""
    return torch.empty(1, 19, 128, 256, dtype=dtype, device="meta"), [1024, 2048], False


UPSAMPLE_ARGMAX = Op(
    "UpsampleArgmax",
    upsample_argmax,
    BODY,
    full_frame=full_frame,
    attributes={"size": "INTS", "coordinates": "STRING"},
    convert=to_attributes,
    revert=from_attributes,
    kernel=Kernel(upsample_argmax_kernel, launch),
)
