"""Logits to labels of the frame's size: bilinear upsampling and argmax in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .kernel import Kernel
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
    for axis in (2, 3):
        low, high, share = neighbours(maps.shape[axis], size[axis - 2], align_corners, maps.device)
        share = share[:, None] if axis == 2 else share
        maps = maps.index_select(axis, low) * (1 - share) + maps.index_select(axis, high) * share
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


def upsample_argmax_kernel(  # type: ignore[no-untyped-def]
    logits, classes, rows, columns, to_rows, to_columns, labels,
    row_step: tl.constexpr, column_step: tl.constexpr, offset: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A block of labels in one row. A class is interpolated down the columns beside a place, then between them."""
    x = tl.program_id(0) * block + tl.arange(0, block)
    y = tl.program_id(1)
    frame = tl.program_id(2)
    inside = x < to_columns
    row = tl.minimum(tl.maximum((y + offset) * row_step - offset, 0.0), rows - 1)
    column = tl.minimum(tl.maximum((x + offset) * column_step - offset, 0.0), columns - 1)
    top = row.to(tl.int32)
    left = column.to(tl.int32)
    below = tl.minimum(top + 1, rows - 1)
    right = tl.minimum(left + 1, columns - 1)
    down = row - top
    along = column - left
    best = tl.full([block], float("-inf"), tl.float32)
    label = tl.zeros([block], tl.int32)
    for c in range(classes):
        upper = logits + ((frame * classes + c) * rows + top) * columns
        lower = logits + ((frame * classes + c) * rows + below) * columns
        before = tl.load(upper + left).to(tl.float32) * (1 - down) + tl.load(lower + left).to(tl.float32) * down
        after = tl.load(upper + right).to(tl.float32) * (1 - down) + tl.load(lower + right).to(tl.float32) * down
        value = before * (1 - along) + after * along
        label = tl.where(value > best, c, label)
        best = tl.maximum(value, best)
    tl.store(labels + (frame * to_rows + y) * to_columns + x, label.to(tl.uint8), mask=inside)


def launch(kernel: Any, logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Run the kernel."""
    n, classes, rows, columns = logits.shape
    labels = logits.new_empty((n, *size), dtype=torch.uint8)
    block = 256
    kernel[(-(-size[1] // block), size[0], n)](
        logits.contiguous(), classes, rows, columns, *size, labels,
        row_step=step(rows, size[0], align_corners), column_step=step(columns, size[1], align_corners),
        offset=0.0 if align_corners else 0.5, block=block,
    )  # fmt: skip
    return labels


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
    kernel=Kernel(upsample_argmax_kernel, launch),
)
