"""SAC's convolution: its taps move away from the centre, or towards it, by a factor of every place."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import Kernel
from .modulated_deform_conv import blocks, sample
from .op import Op, at_least_float

if TYPE_CHECKING:
    import triton.language as tl


def scale_adaptive_conv(x: Tensor, scales: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve 3x3 with a dilation of its own at every place (Zhang et al., ICCV 2017).

    At place p it is the sum over the taps k, rows and columns from -1 to 1, of weight[k] times what `x` is at
    p + scales[p] * dilation * k: bilinear between four places, and zero beyond the border. Where every scale is 1
    this is the dilated convolution that keeps the size.

    Args:
        x: `(N, C, h, w)`, FP16 or FP32.
        scales: `(N, 1, h, w)`.
        weight: `(D, C, 3, 3)`.
        dilation: of scale 1.

    Returns:
        `(N, D, h, w)`, of the type of `x`.

    Raises:
        UsageError: if the shapes do not belong together.
    """
    check_shapes(x, scales, weight)
    maps = at_least_float(x).movedim(1, -1).contiguous()  # (N, h, w, C)
    kernels = weight.to(maps.dtype)
    steps = scales[:, 0].to(maps.dtype) * dilation  # (N, h, w)
    rows = torch.arange(x.shape[2], device=x.device)[:, None]
    columns = torch.arange(x.shape[3], device=x.device)
    y = maps.new_zeros(x.shape[0], weight.shape[0], x.shape[2] * x.shape[3])
    for i, j in product(range(3), range(3)):
        seen = sample(maps, rows + (i - 1) * steps, columns + (j - 1) * steps)
        y = y + kernels[:, :, i, j] @ seen.flatten(2)
    return y.reshape(x.shape[0], weight.shape[0], *x.shape[2:]).to(x.dtype)


def check_shapes(x: Tensor, scales: Tensor, weight: Tensor) -> None:
    """Raise UsageError if the shapes do not belong together."""
    n, channels, h, w = x.shape
    if scales.shape != (n, 1, h, w) or weight.shape[1:] != (channels, 3, 3):
        raise UsageError(
            f"ScaleAdaptiveConv takes scales of shape {(n, 1, h, w)} and a weight of shape (D, {channels}, 3, 3) "
            f"for an x of shape {(n, channels, h, w)}; got {tuple(scales.shape)} and {tuple(weight.shape)}."
        )


# The taps lie below each other in one grid. Without a mode GridSample is bilinear: opset 20 gave that a new name.
BODY = """
    maps = Cast <to = 1> (x)
    float_scales = Cast <to = 1> (scales)
    kernels = Cast <to = 1> (weight)
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    last = Constant <value_int = -1> ()
    height = Shape <start = 2, end = 3> (x)
    width = Shape <start = 3, end = 4> (x)
    row_stop = Squeeze (height)
    row_line = Range (zero, row_stop, one)
    row_places = Unsqueeze (row_line, one)
    column_stop = Squeeze (width)
    column_places = Range (zero, column_stop, one)
    still_rows = Cast <to = 1> (row_places)
    still_columns = Cast <to = 1> (column_places)

    int_dilation = Constant <value_int: int = @dilation> ()
    float_dilation = Cast <to = 1> (int_dilation)
    steps = Mul (float_scales, float_dilation)
    tap_axes = Constant <value_ints = [1, 2]> ()
    tap_rows = Constant <value_floats = [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]> ()
    tap_columns = Constant <value_floats = [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0]> ()
    tap_row = Unsqueeze (tap_rows, tap_axes)
    tap_column = Unsqueeze (tap_columns, tap_axes)
    row_moves = Mul (steps, tap_row)
    column_moves = Mul (steps, tap_column)
    rows = Add (still_rows, row_moves)
    columns = Add (still_columns, column_moves)

    float_one = Constant <value_float = 1.0> ()
    two = Constant <value_float = 2.0> ()
    float_h = Cast <to = 1> (height)
    float_w = Cast <to = 1> (width)
    double_rows = Mul (rows, two)
    odd_rows = Add (double_rows, float_one)
    row_parts = Div (odd_rows, float_h)
    grid_rows = Sub (row_parts, float_one)
    double_columns = Mul (columns, two)
    odd_columns = Add (double_columns, float_one)
    column_parts = Div (odd_columns, float_w)
    grid_columns = Sub (column_parts, float_one)
    last_rows = Unsqueeze (grid_rows, last)
    last_columns = Unsqueeze (grid_columns, last)
    places = Concat <axis = -1> (last_columns, last_rows)
    same_frames = Constant <value_ints = [0, -1]> ()
    pair = Constant <value_ints = [2]> ()
    grid_shape = Concat <axis = 0> (same_frames, width, pair)
    grid = Reshape (places, grid_shape)
    sampled = GridSample (maps, grid)

    matrix_shape = Constant <value_ints = [0, -1]> ()
    matrix = Reshape (kernels, matrix_shape)
    inner = Shape <start = 1, end = 2> (matrix)
    area = Mul (height, width)
    any = Constant <value_ints = [-1]> ()
    seen_shape = Concat <axis = 0> (any, inner, area)
    seen = Reshape (sampled, seen_shape)
    product = MatMul (matrix, seen)
    outputs = Shape <start = 0, end = 1> (weight)
    y_shape = Concat <axis = 0> (any, outputs, height, width)
    float_y = Reshape (product, y_shape)
    y = CastLike (float_y, x)
"""


def scale_adaptive_conv_kernel(  # type: ignore[no-untyped-def]
    x, scales, weight, channels, rows, columns, outputs, y,
    dilation: tl.constexpr, places: tl.constexpr, features: tl.constexpr, depth: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """A block of output channels at a block of places: a product with what each tap sees there."""
    place = tl.program_id(0) * places + tl.arange(0, places)
    feature = tl.program_id(1) * features + tl.arange(0, features)
    frame = tl.program_id(2)
    here = place < rows * columns
    wanted = feature < outputs
    down = place // columns
    along = place % columns
    step = tl.load(scales + frame * (rows * columns) + place, here, 0.0).to(tl.float32) * dilation
    total = tl.zeros([features, places], tl.float32)
    for start in range(0, channels, depth):
        channel = start + tl.arange(0, depth)
        there = channel < channels
        image = (frame * channels + channel)[:, None] * (rows * columns)
        kernels = (feature[:, None] * channels + channel[None, :]) * 9
        # Taps within channels: the places that they see overlap, and their weights lie side by side.
        for tap in range(9):
            row = tl.minimum(tl.maximum(down + (tap // 3 - 1) * step, -1.0), rows)
            column = tl.minimum(tl.maximum(along + (tap % 3 - 1) * step, -1.0), columns)
            top = tl.floor(row)
            left = tl.floor(column)
            row_share = row - top
            column_share = column - left
            corner = top.to(tl.int32) * columns + left.to(tl.int32)
            upper = here & (top >= 0) & (top < rows)
            lower = here & (top < rows - 1)
            before = (left >= 0) & (left < columns)
            after = left < columns - 1
            at = image + corner[None, :]
            upper_before = tl.load(x + at, there[:, None] & (upper & before)[None, :], 0.0).to(tl.float32)
            seen = upper_before * ((1 - row_share) * (1 - column_share))[None, :]
            upper_after = tl.load(x + at + 1, there[:, None] & (upper & after)[None, :], 0.0).to(tl.float32)
            seen += upper_after * ((1 - row_share) * column_share)[None, :]
            at += columns
            lower_before = tl.load(x + at, there[:, None] & (lower & before)[None, :], 0.0).to(tl.float32)
            seen += lower_before * (row_share * (1 - column_share))[None, :]
            lower_after = tl.load(x + at + 1, there[:, None] & (lower & after)[None, :], 0.0).to(tl.float32)
            seen += lower_after * (row_share * column_share)[None, :]
            factors = tl.load(weight + tap + kernels, wanted[:, None] & there[None, :], 0.0)
            total = tl.dot(factors, seen.to(factors.dtype), total, input_precision=precision)
    at = (frame * outputs + feature)[:, None] * (rows * columns) + place[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=wanted[:, None] & here[None, :])


def launch(kernel: Any, x: Tensor, scales: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Run the kernel."""
    check_shapes(x, scales, weight)
    n, _, h, w = x.shape
    outputs = weight.shape[0]
    y = x.new_empty(n, outputs, h, w)
    block = blocks(kernel.architecture, x, outputs)
    kernel[(-(-h * w // block["places"]), -(-outputs // block["features"]), n)](
        *(t.contiguous() for t in (x, scales, weight)), *x.shape[1:], outputs, y, dilation=dilation, **block
    )
    return y


def full_frame(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, int]:
    """The last stage of SACNet, at 1/8 of 1024x2048."""
    x, scales = (torch.empty(1, c, 128, 256, dtype=dtype, device="meta") for c in (512, 1))
    return x, scales, torch.empty(512, 512, 3, 3, dtype=dtype, device="meta"), 4


SCALE_ADAPTIVE_CONV = Op(
    "ScaleAdaptiveConv",
    scale_adaptive_conv,
    BODY,
    full_frame=full_frame,
    attributes={"dilation": "INT"},
    kernel=Kernel(scale_adaptive_conv_kernel, launch),
    kernel_types=[torch.float16],  # docs/gpu.md: in FP32 the reference is faster
)
