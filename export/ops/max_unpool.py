"""Where max pooling found its maxima, and a map with values put back there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import Kernel
from .op import Op

if TYPE_CHECKING:
    import triton.language as tl


def max_pool_indices(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Where the maximum of each pooling window is; of equal ones the first, row by row.

    As `torch.nn.functional.max_pool2d(return_indices=True)` on a CPU. Padding is never chosen, not even where all
    the map is -inf. A window with a NaN names a place that it sees; which one is left open.

    Args:
        x: `(N, C, H, W)`, FP16 or FP32.
        kernel: rows and columns of a window, at most twice the stride.
        stride: rows and columns from one window to the next.
        padding: rows and columns around the map that windows reach into, at most half the kernel.

    Returns:
        `(N, C, h, w)` int32, row * W + column; h is floor((H + 2 * padding - kernel) / stride) + 1, w likewise.

    Raises:
        UsageError: if there are no such windows, or the map is smaller than one.
    """
    places = places_seen(x, kernel, stride, padding)
    best = x.flatten(2)[..., places].argmax(dim=-1, keepdim=True)  # (N, C, h, w, 1)
    return torch.take_along_dim(places[None, None], best, dim=-1).squeeze(-1).int()


def names_maxima(indices: Tensor, error: float, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Whether each window's index names a place that it sees, whose value is the maximum but for `error`.

    Args:
        indices: `(N, C, h, w)`, as `max_pool_indices` gives them for the other arguments.
        error: of a value of `x`.
        x: as for `max_pool_indices`, as are `kernel`, `stride` and `padding`.

    Returns:
        `(N, C, h, w)` bool.
    """
    places = places_seen(x, kernel, stride, padding)
    seen = x.flatten(2)[..., places]  # (N, C, h, w, kernel * kernel)
    good = seen >= seen.amax(dim=-1, keepdim=True) - error
    return (good & (places == indices[..., None])).any(dim=-1)


def places_seen(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """`(h, w, kernel * kernel)`: the places of a map `(N, C, H, W)` that each window sees, row by row.

    Raises:
        UsageError: if there are no such windows, or the map is smaller than one.
    """
    count_windows(x.shape[2:], kernel, stride, padding)
    rows, columns = (taps(length, kernel, stride, padding, x.device) for length in x.shape[2:])
    return (x.shape[3] * rows[:, None, :, None] + columns[:, None, :]).flatten(2)


def taps(length: int, kernel: int, stride: int, padding: int, device: torch.device) -> Tensor:
    """`(windows, kernel)`: the places along an axis that each window sees.

    The border's place stands for those beyond it. The window sees that one too, so no maximum changes, and no
    number is needed for padding that a map might hold.
    """
    (windows,) = count_windows([length], kernel, stride, padding)
    starts = stride * torch.arange(windows, device=device) - padding
    return (starts[:, None] + torch.arange(kernel, device=device)).clamp(0, length - 1)


def count_windows(size: Sequence[int], kernel: int, stride: int, padding: int) -> list[int]:
    """Windows along each axis of a map.

    Raises:
        UsageError: if there are no such windows, or the map is smaller than one.
    """
    if not (1 <= kernel <= 2 * stride and 0 <= 2 * padding <= kernel):
        raise UsageError(
            f"windows with kernel {kernel}, stride {stride} and padding {padding} are not supported. A kernel is "
            "1 to twice the stride and a padding 0 to half the kernel: 2, 2 and 0 in SegNet and ENet, 3, 2 and 1 "
            "in ports of ENet whose windows overlap."
        )
    windows = [(length + 2 * padding - kernel) // stride + 1 for length in size]
    if min(windows) < 1:
        raise UsageError(
            f"a map of size {tuple(size)} with padding {padding} is smaller than a window of {kernel}."
        )
    return windows


POOL_BODY = """
    kernel_attribute = Constant <value_int: int = @kernel> ()
    stride_attribute = Constant <value_int: int = @stride> ()
    padding_attribute = Constant <value_int: int = @padding> ()
    size_64 = Shape <start = 2> (x)
    kernel = Cast <to = 6> (kernel_attribute)
    stride = Cast <to = 6> (stride_attribute)
    padding = Cast <to = 6> (padding_attribute)
    size = Cast <to = 6> (size_64)
    zero = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()

    both_paddings = Add (padding, padding)
    padded = Add (size, both_paddings)
    room = Sub (padded, kernel)
    strides = Div (room, stride)
    windows = Add (strides, one)
    last = Sub (size, one)
    columns = Gather (size, one)
    last_row = Gather (last, zero)
    last_column = Gather (last, one)
    to_rows = Gather (windows, zero)
    to_columns = Gather (windows, one)

    row_window = Range (zero, to_rows, one)
    row_step = Mul (row_window, stride)
    top = Sub (row_step, padding)
    column_window = Range (zero, to_columns, one)
    column_step = Mul (column_window, stride)
    left = Sub (column_step, padding)
    tap = Range (zero, kernel, one)
    behind = Constant <value_ints = [1]> ()
    tops = Unsqueeze (top, behind)
    lefts = Unsqueeze (left, behind)

    row_tap = Add (tops, tap)
    row_from_border = Max (row_tap, zero)
    row_taps = Min (row_from_border, last_row)
    column_tap = Add (lefts, tap)
    column_from_border = Max (column_tap, zero)
    column_taps = Min (column_from_border, last_column)

    in_rows = Gather <axis = 2> (x, row_taps)
    seen = Gather <axis = 4> (in_rows, column_taps)
    by_window = Transpose <perm = [0, 1, 2, 4, 3, 5]> (seen)
    one_axis = Constant <value_ints = [0, 0, 0, 0, -1]> ()
    values = Reshape (by_window, one_axis)
    best_64 = ArgMax <axis = 4, keepdims = 0> (values)
    best = Cast <to = 6> (best_64)

    best_row_tap = Div (best, kernel)
    best_column_tap = Mod (best, kernel)
    best_row = Add (best_row_tap, tops)
    best_row_from_border = Max (best_row, zero)
    row = Min (best_row_from_border, last_row)
    best_column = Add (best_column_tap, left)
    best_column_from_border = Max (best_column, zero)
    column = Min (best_column_from_border, last_column)
    before = Mul (row, columns)
    y = Add (before, column)
"""


def max_pool_indices_kernel(  # type: ignore[no-untyped-def]
    x, rows, columns, to_rows, to_columns, indices,
    kernel: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A block of windows of one plane. Places are held at the border, so that every load is of the map."""
    window = tl.program_id(0) * block + tl.arange(0, block)
    plane = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    source = x + plane * rows * columns
    top = window // to_columns * stride - padding
    left = window % to_columns * stride - padding
    best = tl.full([block], float("-inf"), x.dtype.element_ty)
    index = tl.maximum(top, 0) * columns + tl.maximum(left, 0)
    for i in tl.static_range(kernel):
        row = tl.minimum(tl.maximum(top + i, 0), rows - 1)
        for j in tl.static_range(kernel):
            place = row * columns + tl.minimum(tl.maximum(left + j, 0), columns - 1)
            value = tl.load(source + place)
            index = tl.where(value > best, place, index)
            best = tl.maximum(value, best)
    target = indices + plane * to_rows * to_columns
    tl.store(target + window, index, mask=window < to_rows * to_columns)


def launch_pool(jit: Any, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Run the kernel."""
    n, channels, *size = x.shape
    to_size = count_windows(size, kernel, stride, padding)
    indices = x.new_empty((n, channels, *to_size), dtype=torch.int32)
    block = 256
    jit[(-(-to_size[0] * to_size[1] // block), channels, n)](
        x.contiguous(), *size, *to_size, indices, kernel=kernel, stride=stride, padding=padding, block=block
    )
    return indices


def full_frame_pool(dtype: torch.dtype) -> tuple[Tensor, int, int, int]:
    """The first of ENet's poolings that are undone, of 1024x2048, with windows that overlap."""
    return torch.empty(1, 16, 512, 1024, dtype=dtype, device="meta"), 3, 2, 1


MAX_POOL_INDICES = Op(
    "MaxPoolIndices",
    max_pool_indices,
    POOL_BODY,
    full_frame=full_frame_pool,
    attributes={"kernel": "INT", "stride": "INT", "padding": "INT"},
    kernel=Kernel(max_pool_indices_kernel, launch_pool),
    as_good=names_maxima,
)


def max_unpool(
    values: Tensor, indices: Tensor, size: Sequence[int], kernel: int, stride: int, padding: int
) -> Tensor:
    """Values of pooling windows at the places that the windows name, and 0 elsewhere.

    Of several windows that name a place the last has it, row by row: what PyTorch's `max_unpool2d` does on a CPU,
    while on a GPU it leaves the order open. A NaN is put back like any number.

    Args:
        values: `(N, C, h, w)`, FP16 or FP32.
        indices: `(N, C, h, w)`, int32 or int64, as `max_pool_indices` gives them for a map of `size`. A window
            that names a place it does not see may lose its value.
        size: rows and columns of the answer.
        kernel: of the windows, as are `stride` and `padding`.
        stride: as for `max_pool_indices`.
        padding: as for `max_pool_indices`.

    Returns:
        `(N, C, *size)`, of the values' type.

    Raises:
        UsageError: if there are no such windows, or a map of `size` has another number of them.
    """
    check_windows(values, indices, size, kernel, stride, padding)
    places = torch.arange(size[0] * size[1], device=values.device).view(*size)
    answer = values.new_zeros((*values.shape[:2], *size))
    across = (candidates(length, kernel, stride, padding, values.device) for length in size)
    for rows, columns in product(*across):
        named = indices.index_select(2, rows).index_select(3, columns) == places
        answer = torch.where(named, values.index_select(2, rows).index_select(3, columns), answer)
    return answer


def candidates(length: int, kernel: int, stride: int, padding: int, device: torch.device) -> list[Tensor]:
    """For each place along an axis the windows that may see it, in ascending order."""
    (windows,) = count_windows([length], kernel, stride, padding)
    last = (torch.arange(length, device=device) + padding) // stride
    return [(last - back).clamp(0, windows - 1) for back in reversed(range(overlap(kernel, stride)))]


def overlap(kernel: int, stride: int) -> int:
    """How many windows may see a place along an axis."""
    return -(-kernel // stride)


def check_windows(
    values: Tensor, indices: Tensor, size: Sequence[int], kernel: int, stride: int, padding: int
) -> None:
    """Raise UsageError unless values and indices are of the windows of a map of a size."""
    expected = (*values.shape[:2], *count_windows(size, kernel, stride, padding))
    if not values.shape == indices.shape == expected:
        raise UsageError(
            f"values and indices are of shape {expected} for size {tuple(size)}, kernel {kernel}, stride {stride} "
            f"and padding {padding}; got {tuple(values.shape)} and {tuple(indices.shape)}."
        )


UNPOOL_BODY = """
    size = Constant <value_ints: ints = @size> ()
    kernel = Constant <value_int: int = @kernel> ()
    stride = Constant <value_int: int = @stride> ()
    padding = Constant <value_int: int = @padding> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    windows = Shape <start = 2> (values)
    last = Sub (windows, one)
    last_row = Gather (last, zero)
    last_column = Gather (last, one)
    to_rows = Gather (size, zero)
    to_columns = Gather (size, one)
    row = Range (zero, to_rows, one)
    column = Range (zero, to_columns, one)
    further_taps = Sub (kernel, one)
    back = Div (further_taps, stride)

    padded_row = Add (row, padding)
    row_below = Div (padded_row, stride)
    row_above = Sub (row_below, back)
    row_above_from_border = Max (row_above, zero)
    above = Min (row_above_from_border, last_row)
    below = Min (row_below, last_row)
    padded_column = Add (column, padding)
    column_right = Div (padded_column, stride)
    column_left = Sub (column_right, back)
    column_left_from_border = Max (column_left, zero)
    left = Min (column_left_from_border, last_column)
    right = Min (column_right, last_column)

    behind = Constant <value_ints = [1]> ()
    rows = Unsqueeze (row, behind)
    before = Mul (rows, to_columns)
    places_64 = Add (before, column)
    places = CastLike (places_64, indices)
    nothing = CastLike (zero, values)

    values_above = Gather <axis = 2> (values, above)
    indices_above = Gather <axis = 2> (indices, above)
    values_below = Gather <axis = 2> (values, below)
    indices_below = Gather <axis = 2> (indices, below)

    values_above_left = Gather <axis = 3> (values_above, left)
    indices_above_left = Gather <axis = 3> (indices_above, left)
    named_above_left = Equal (indices_above_left, places)
    of_one = Where (named_above_left, values_above_left, nothing)
    values_above_right = Gather <axis = 3> (values_above, right)
    indices_above_right = Gather <axis = 3> (indices_above, right)
    named_above_right = Equal (indices_above_right, places)
    of_two = Where (named_above_right, values_above_right, of_one)
    values_below_left = Gather <axis = 3> (values_below, left)
    indices_below_left = Gather <axis = 3> (indices_below, left)
    named_below_left = Equal (indices_below_left, places)
    of_three = Where (named_below_left, values_below_left, of_two)
    values_below_right = Gather <axis = 3> (values_below, right)
    indices_below_right = Gather <axis = 3> (indices_below, right)
    named_below_right = Equal (indices_below_right, places)
    y = Where (named_below_right, values_below_right, of_three)
"""


def max_unpool_kernel(  # type: ignore[no-untyped-def]
    values, indices, rows, columns, to_rows, to_columns, answer,
    stride: tl.constexpr, padding: tl.constexpr, overlap: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A block of places of one plane. Each asks the windows that may see it whether they name it."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    plane = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    values += plane * rows * columns
    indices += plane * rows * columns
    below = (place // to_columns + padding) // stride
    right = (place % to_columns + padding) // stride
    found = tl.zeros([block], values.dtype.element_ty)
    for i in tl.static_range(1 - overlap, 1):
        row = tl.minimum(tl.maximum(below + i, 0), rows - 1)
        for j in tl.static_range(1 - overlap, 1):
            window = row * columns + tl.minimum(tl.maximum(right + j, 0), columns - 1)
            found = tl.where(tl.load(indices + window) == place, tl.load(values + window), found)
    target = answer + plane * to_rows * to_columns
    tl.store(target + place, found, mask=place < to_rows * to_columns)


def launch_unpool(
    jit: Any, values: Tensor, indices: Tensor, size: Sequence[int], kernel: int, stride: int, padding: int
) -> Tensor:
    """Run the kernel."""
    check_windows(values, indices, size, kernel, stride, padding)
    n, channels, rows, columns = values.shape
    answer = values.new_empty((n, channels, *size))
    block = 256
    jit[(-(-size[0] * size[1] // block), channels, n)](
        values.contiguous(), indices.contiguous(), rows, columns, *size, answer,
        stride=stride, padding=padding, overlap=overlap(kernel, stride), block=block,
    )  # fmt: skip
    return answer


def full_frame_unpool(dtype: torch.dtype) -> tuple[Tensor, Tensor, list[int], int, int, int]:
    """The last of ENet's unpoolings, to 1/2 of 1024x2048, with windows that overlap."""
    values = torch.empty(1, 16, 256, 512, dtype=dtype, device="meta")
    return values, torch.empty_like(values, dtype=torch.int32), [512, 1024], 3, 2, 1


MAX_UNPOOL = Op(
    "MaxUnpool2d",
    max_unpool,
    UNPOOL_BODY,
    full_frame=full_frame_unpool,
    attributes={"size": "INTS", "kernel": "INT", "stride": "INT", "padding": "INT"},
    kernel=Kernel(max_unpool_kernel, launch_unpool),
)
