"""DCNv2's convolution: every tap looks where an offset says, and what it sees is scaled by a mask."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import LARGE, TENSOR_CORES, Kernel
from .op import Op, at_least_float

if TYPE_CHECKING:
    import triton.language as tl


def modulated_deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor,
    stride: int, padding: int, dilation: int, groups: int, offset_groups: int,
) -> Tensor:  # fmt: skip
    """Convolve with taps that are moved and scaled at every place (Zhu et al., arXiv 1811.11168, equation 1).

    At place p it is the sum over the taps k of weight[k] times mask[k, p] times what `x` is at
    p * stride - padding + k * dilation + offset[k, p]: bilinear between four places, and zero beyond the border.
    Axes and options are those of ONNX's DeformConv (opset 19), without its bias: that is an Add.

    Args:
        x: `(N, C, h, w)`, FP16 or FP32.
        offset: `(N, offset_groups * kh * kw * 2, oh, ow)`, rows before columns in each pair.
        mask: `(N, offset_groups * kh * kw, oh, ow)`.
        weight: `(D, C / groups, kh, kw)`.
        stride: places of `x` between two of the answer.
        padding: rows and columns of zeros around `x`.
        dilation: places of `x` between two taps that are not moved.
        groups: the channels of `x` and of the answer are parted into so many that know nothing of each other.
        offset_groups: the channels of `x` are parted into so many with offsets and masks of their own.

    Returns:
        `(N, D, oh, ow)`, of the type of `x`.

    Raises:
        UsageError: if the shapes do not belong together.
    """
    n, d, rows, columns = answer_shape(x, offset, mask, weight, stride, padding, dilation, groups, offset_groups)
    maps = at_least_float(x)
    moves, masks, kernels = (t.to(maps.dtype) for t in (offset, mask, weight))
    taps = list(product(range(weight.shape[2]), range(weight.shape[3])))
    moves = moves.reshape(n * offset_groups, len(taps), 2, rows, columns)
    masks = masks.reshape(n * offset_groups, len(taps), 1, rows, columns)
    kernels = kernels.reshape(groups, d // groups, weight.shape[1], len(taps))
    maps = maps.reshape(n * offset_groups, x.shape[1] // offset_groups, *x.shape[2:])
    maps = maps.movedim(1, -1).contiguous()  # (N * offset_groups, h, w, C / offset_groups)
    down = torch.arange(rows, device=x.device)[:, None] * stride - padding
    along = torch.arange(columns, device=x.device) * stride - padding
    y = maps.new_zeros(n, groups, d // groups, rows * columns)
    for tap, (i, j) in enumerate(taps):
        seen = sample(maps, down + i * dilation + moves[:, tap, 0], along + j * dilation + moves[:, tap, 1])
        seen = (seen * masks[:, tap]).reshape(n, groups, weight.shape[1], rows * columns)
        y = y + kernels[..., tap] @ seen
    return y.reshape(n, d, rows, columns).to(x.dtype)


def sample(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What maps are between their places: bilinear between four of them, and zero beyond the border.

    As PyTorch's `grid_sample`, but for what a coordinate loses when it is made a share of the map and back.

    Args:
        maps: `(N, h, w, C)`.
        rows: `(N, oh, ow)`, in places of the maps.
        columns: likewise.

    Returns:
        `(N, C, oh, ow)`.
    """
    n, h, w, channels = maps.shape
    corners = [
        (row * w + column, row_share * column_share)
        for (row, row_share), (column, column_share) in product(neighbours(rows, h), neighbours(columns, w))
    ]
    places, shares = (torch.stack(parts, dim=-1) for parts in zip(*corners, strict=True))  # (N, oh, ow, 4)
    places = places + torch.arange(n, device=maps.device).reshape(n, 1, 1, 1) * (h * w)
    # A weighted sum of a table's rows. Corner by corner it takes four times the memory and five times as long.
    seen = F.embedding_bag(
        places.reshape(-1, 4), maps.reshape(-1, channels), mode="sum", per_sample_weights=shares.reshape(-1, 4)
    )
    return seen.reshape(*rows.shape, channels).movedim(-1, 1)


def neighbours(places: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """The whole places before and after each, and the share of each in what is seen: 0 beyond the border."""
    places = places.clamp(-1, length)  # further away it is zero as well
    first = places.detach().floor()
    # As a difference, not as a distance: the slope at a whole place is then that towards the next.
    share = places - first
    both = ((first.long(), 1 - share), (first.long() + 1, share))
    return [(i.clamp(0, length - 1), part * ((i >= 0) & (i < length))) for i, part in both]


def answer_shape(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor,
    stride: int, padding: int, dilation: int, groups: int, offset_groups: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Shape of the answer.

    Raises:
        UsageError: if the shapes do not belong together.
    """
    n, channels, *size = x.shape
    d, depth, *window = weight.shape
    if channels % groups or d % groups or channels % offset_groups or depth != channels // groups:
        raise UsageError(
            f"ModulatedDeformConv with groups={groups} and offset_groups={offset_groups} takes a weight of shape "
            f"(D, C / groups, kh, kw) where both divide C, and groups divides D; got {tuple(weight.shape)} for an "
            f"x of shape {tuple(x.shape)}."
        )
    rows, columns = (
        (places + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for places, taps in zip(size, window, strict=True)
    )
    moved = offset_groups * window[0] * window[1]
    if offset.shape != (n, 2 * moved, rows, columns) or mask.shape != (n, moved, rows, columns):
        raise UsageError(
            f"ModulatedDeformConv answers {rows}x{columns} here, and takes an offset of shape "
            f"{(n, 2 * moved, rows, columns)} and a mask of shape {(n, moved, rows, columns)}; "
            f"got {tuple(offset.shape)} and {tuple(mask.shape)}."
        )
    return n, d, rows, columns


# The taps lie below each other in one grid. Without a mode GridSample is bilinear: opset 20 gave that a new name.
BODY = """
    maps = Cast <to = 1> (x)
    moves = Cast <to = 1> (offset)
    masks = Cast <to = 1> (mask)
    kernels = Cast <to = 1> (weight)
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    any = Constant <value_ints = [-1]> ()
    single = Constant <value_ints = [1]> ()
    pair = Constant <value_ints = [2]> ()
    strides = Constant <value_int: int = @stride> ()
    paddings = Constant <value_int: int = @padding> ()
    dilations = Constant <value_int: int = @dilation> ()
    group = Constant <value_int: int = @groups> ()
    parts = Unsqueeze (group, zero)
    offset_group = Constant <value_int: int = @offset_groups> ()

    channels = Shape <start = 1, end = 2> (x)
    share = Div (channels, offset_group)
    size = Shape <start = 2, end = 4> (x)
    h = Shape <start = 2, end = 3> (x)
    w = Shape <start = 3, end = 4> (x)
    to_rows = Shape <start = 2, end = 3> (offset)
    to_columns = Shape <start = 3, end = 4> (offset)
    to_size = Shape <start = 2, end = 4> (offset)
    depth = Shape <start = 1, end = 2> (weight)
    high = Shape <start = 2, end = 3> (weight)
    wide = Shape <start = 3, end = 4> (weight)
    taps = Mul (high, wide)
    inner = Mul (depth, taps)
    stacked = Mul (taps, to_rows)

    tap_stop = Squeeze (taps)
    tap_line = Range (zero, tap_stop, one)
    tap_axes = Constant <value_ints = [1, 2]> ()
    tap = Unsqueeze (tap_line, tap_axes)
    tap_row = Div (tap, wide)
    tap_column = Mod (tap, wide)
    row_move = Mul (tap_row, dilations)
    column_move = Mul (tap_column, dilations)
    row_stop = Squeeze (to_rows)
    row_line = Range (zero, row_stop, one)
    row_places = Unsqueeze (row_line, one)
    row_strides = Mul (row_places, strides)
    row_starts = Sub (row_strides, paddings)
    column_stop = Squeeze (to_columns)
    column_places = Range (zero, column_stop, one)
    column_strides = Mul (column_places, strides)
    column_starts = Sub (column_strides, paddings)
    int_rows = Add (row_starts, row_move)
    int_columns = Add (column_starts, column_move)
    still_rows = Cast <to = 1> (int_rows)
    still_columns = Cast <to = 1> (int_columns)

    move_shape = Concat <axis = 0> (any, taps, pair, to_size)
    paired = Reshape (moves, move_shape)
    row_offset = Gather <axis = 2> (paired, zero)
    column_offset = Gather <axis = 2> (paired, one)
    rows = Add (still_rows, row_offset)
    columns = Add (still_columns, column_offset)
    float_one = Constant <value_float = 1.0> ()
    two = Constant <value_float = 2.0> ()
    float_h = Cast <to = 1> (h)
    float_w = Cast <to = 1> (w)
    double_rows = Mul (rows, two)
    odd_rows = Add (double_rows, float_one)
    row_parts = Div (odd_rows, float_h)
    grid_rows = Sub (row_parts, float_one)
    double_columns = Mul (columns, two)
    odd_columns = Add (double_columns, float_one)
    column_parts = Div (odd_columns, float_w)
    grid_columns = Sub (column_parts, float_one)
    last_rows = Unsqueeze (grid_rows, any)
    last_columns = Unsqueeze (grid_columns, any)
    places = Concat <axis = -1> (last_columns, last_rows)
    grid_shape = Concat <axis = 0> (any, stacked, to_columns, pair)
    grid = Reshape (places, grid_shape)

    map_shape = Concat <axis = 0> (any, share, size)
    parted = Reshape (maps, map_shape)
    sampled = GridSample (parted, grid)
    mask_shape = Concat <axis = 0> (any, single, stacked, to_columns)
    mask_map = Reshape (masks, mask_shape)
    masked = Mul (sampled, mask_map)
    area = Mul (to_rows, to_columns)
    seen_shape = Concat <axis = 0> (any, parts, inner, area)
    seen = Reshape (masked, seen_shape)
    matrix_shape = Concat <axis = 0> (parts, any, inner)
    matrix = Reshape (kernels, matrix_shape)
    product = MatMul (matrix, seen)
    outputs = Shape <start = 0, end = 1> (weight)
    y_shape = Concat <axis = 0> (any, outputs, to_size)
    float_y = Reshape (product, y_shape)
    y = CastLike (float_y, x)
"""


def modulated_deform_conv_kernel(  # type: ignore[no-untyped-def]
    x, offset, mask, weight, channels, rows, columns, outputs, to_rows, to_columns, y,
    stride: tl.constexpr, padding: tl.constexpr, dilation: tl.constexpr, groups: tl.constexpr,
    offset_groups: tl.constexpr, high: tl.constexpr, wide: tl.constexpr,
    places: tl.constexpr, features: tl.constexpr, depth: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """A block of output channels of one group at a block of places: a product with what each tap sees there."""
    place = tl.program_id(0) * places + tl.arange(0, places)
    blocks = tl.cdiv(outputs // groups, features)
    group = tl.program_id(1) // blocks
    feature = tl.program_id(1) % blocks * features + tl.arange(0, features)
    frame = tl.program_id(2)
    here = place < to_rows * to_columns
    wanted = feature < outputs // groups
    feature += group * (outputs // groups)
    down = place // to_columns * stride - padding
    along = place % to_columns * stride - padding
    taps: tl.constexpr = high * wide
    first = group * (channels // groups)
    end = first + channels // groups
    share = channels // offset_groups
    total = tl.zeros([features, places], tl.float32)
    start = first
    while start < end:
        part = start // share
        stop = tl.minimum((part + 1) * share, end)
        channel = start + tl.arange(0, depth)
        there = channel < stop
        image = (frame * channels + channel)[:, None] * (rows * columns)
        kernels = (feature[:, None] * (channels // groups) + (channel - first)[None, :]) * taps
        # Taps within channels: the places that they see overlap, and their weights lie side by side.
        for tap in range(taps):
            plane = (frame * offset_groups + part) * taps + tap
            move = offset + 2 * plane * (to_rows * to_columns) + place
            row = down + tap // wide * dilation + tl.load(move, here, 0.0).to(tl.float32)
            move += to_rows * to_columns
            column = along + tap % wide * dilation + tl.load(move, here, 0.0).to(tl.float32)
            row = tl.minimum(tl.maximum(row, -1.0), rows)
            column = tl.minimum(tl.maximum(column, -1.0), columns)
            top = tl.floor(row)
            left = tl.floor(column)
            row_share = row - top
            column_share = column - left
            corner = top.to(tl.int32) * columns + left.to(tl.int32)
            upper = here & (top >= 0) & (top < rows)
            lower = here & (top < rows - 1)
            before = (left >= 0) & (left < columns)
            after = left < columns - 1
            scale = tl.load(mask + plane * (to_rows * to_columns) + place, here, 0.0).to(tl.float32)
            near = (1 - row_share) * scale
            far = row_share * scale
            at = image + corner[None, :]
            upper_before = tl.load(x + at, there[:, None] & (upper & before)[None, :], 0.0).to(tl.float32)
            seen = upper_before * (near * (1 - column_share))[None, :]
            upper_after = tl.load(x + at + 1, there[:, None] & (upper & after)[None, :], 0.0).to(tl.float32)
            seen += upper_after * (near * column_share)[None, :]
            at += columns
            lower_before = tl.load(x + at, there[:, None] & (lower & before)[None, :], 0.0).to(tl.float32)
            seen += lower_before * (far * (1 - column_share))[None, :]
            lower_after = tl.load(x + at + 1, there[:, None] & (lower & after)[None, :], 0.0).to(tl.float32)
            seen += lower_after * (far * column_share)[None, :]
            factors = tl.load(weight + tap + kernels, wanted[:, None] & there[None, :], 0.0)
            total = tl.dot(factors, seen.to(factors.dtype), total, input_precision=precision)
        start = tl.minimum(start + depth, stop)
    at = (frame * outputs + feature)[:, None] * (to_rows * to_columns) + place[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=wanted[:, None] & here[None, :])


def launch(
    kernel: Any, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor,
    stride: int, padding: int, dilation: int, groups: int, offset_groups: int,
) -> Tensor:  # fmt: skip
    """Run the kernel."""
    shape = answer_shape(x, offset, mask, weight, stride, padding, dilation, groups, offset_groups)
    y = x.new_empty(shape)
    n, outputs, to_rows, to_columns = shape
    block = blocks(kernel.architecture, x, outputs // groups)
    kernel[(-(-to_rows * to_columns // block["places"]), groups * -(-outputs // groups // block["features"]), n)](
        *(t.contiguous() for t in (x, offset, mask, weight)), *x.shape[1:], *shape[1:], y,
        stride=stride, padding=padding, dilation=dilation, groups=groups, offset_groups=offset_groups,
        high=weight.shape[2], wide=weight.shape[3], **block,
    )  # fmt: skip
    return y


def blocks(architecture: int, x: Tensor, outputs: int) -> dict[str, Any]:
    """What a program computes: places, of how many output channels, from how many channels at a time.

    The largest blocks that do not spill on sm_87 and sm_90; two programs fit a multiprocessor of sm_87.
    """
    half = x.dtype == torch.float16
    places, most = (64, 128) if half else (32, 64)
    if architecture in LARGE:
        places, most = 64, 2 * most
    features = 16
    while features < min(outputs, most):
        features *= 2
    precision = "tf32x3" if not half and architecture in TENSOR_CORES else "ieee"
    sizes = {"places": places, "features": features, "depth": 16}
    return sizes | {"precision": precision, "num_warps": 8, "num_stages": 1}


def full_frame(dtype: torch.dtype) -> tuple[Any, ...]:
    """A 3x3 convolution in the third stage of a ResNet, at 1/16 of 1024x2048."""
    x, offset, mask = (torch.empty(1, c, 64, 128, dtype=dtype, device="meta") for c in (256, 18, 9))
    return x, offset, mask, torch.empty(256, 256, 3, 3, dtype=dtype, device="meta"), 1, 1, 1, 1, 1


MODULATED_DEFORM_CONV = Op(
    "ModulatedDeformConv",
    modulated_deform_conv,
    BODY,
    full_frame=full_frame,
    attributes=dict.fromkeys(("stride", "padding", "dilation", "groups", "offset_groups"), "INT"),
    kernel=Kernel(modulated_deform_conv_kernel, launch),
)
