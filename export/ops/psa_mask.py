"""PSANet's scores between positions, and the weights they collect and distribute by (Zhao et al., ECCV 2018)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import Kernel
from .op import Op, at_least_float

if TYPE_CHECKING:
    import triton.language as tl

LOWEST = -torch.finfo(torch.float32).max
"""Stands for minus infinity where two of them might be subtracted."""


def psa_mask(scores: Tensor, window: int) -> Tensor:
    """What each position says of every other, from what it says of the window around it.

    Position (h, w) says `scores[:, (h2 - h + window // 2) * window + w2 - w + window // 2, h, w]` of (h2, w2). The
    definition is that of `PSAMask` in hszhao/semseg, whose two types differ in a transposition.

    Args:
        scores: `(N, window * window, H, W)`, FP16 or FP32.
        window: rows and columns, odd.

    Returns:
        `(N, H*W, H*W)`, own position, other position, in the type of `scores`; 0 outside the window.

    Raises:
        UsageError: if the scores are not those of such a window.
    """
    return between(scores, window).flatten(3).flatten(1, 2).contiguous()


def psa_collect(scores: Tensor, window: int) -> Tensor:
    """Weights by which each position collects from the others: the softmax of what it says of them.

    It runs over all positions, also those outside the window, of which a position says 0. It is computed in FP32.

    Args:
        scores: `(N, window * window, H, W)`, FP16 or FP32.
        window: rows and columns, odd.

    Returns:
        `(N, H*W, H*W)`, other position, own position, in the type of `scores`: what features `(N, C, H*W)` are
        multiplied by. Its columns sum to 1.
    """
    says = between(scores, window).permute(0, 3, 4, 1, 2).flatten(3).flatten(1, 2)
    return torch.softmax(at_least_float(says), dim=1).to(scores.dtype)


def psa_distribute(scores: Tensor, window: int) -> Tensor:
    """Weights by which each position is given by the others: the softmax of what these say of it.

    It runs over all positions, also those from whose window it is missing, which say 0. It is computed in FP32.

    Args:
        scores: `(N, window * window, H, W)`, FP16 or FP32.
        window: rows and columns, odd.

    Returns:
        `(N, H*W, H*W)`, own position, other position, in the type of `scores`: what features `(N, C, H*W)` are
        multiplied by. Its columns sum to 1.
    """
    says = between(scores, window).flatten(3).flatten(1, 2)
    return torch.softmax(at_least_float(says), dim=1).to(scores.dtype)


def between(scores: Tensor, window: int) -> Tensor:
    """From `(N, window * window, H, W)` to `(N, H, W, other H, other W)`."""
    check(scores, window)
    n, _, height, width = scores.shape
    x = scores.reshape(n, window, window, height, width)
    x = from_window(x.permute(0, 2, 4, 3, 1))  # (N, window columns, W, H, other H)
    x = from_window(x.permute(0, 3, 4, 2, 1))  # (N, H, other H, W, other W)
    return x.transpose(2, 3)


def check(scores: Tensor, window: int) -> None:
    """Raise UsageError if the scores are not those of such a window: the kernel would leave its memory."""
    if window % 2 != 1 or scores.shape[1] != window**2:
        raise UsageError(
            f"a window has an odd number of rows and as many columns, each with a channel of scores; got a window "
            f"of {window} and scores of shape {tuple(scores.shape)}."
        )


def from_window(x: Tensor) -> Tensor:
    """Along an axis of length L, from offsets to places: `(..., L, window)` to `(..., L, L)`.

    Row i holds the places around i: they move by one from row to row. Read in rows that are shorter by one, they
    stand still. Zeros behind a row are both what its last places lack and what the next row's first ones do.
    """
    length, window = x.shape[-2:]
    reach = min(window // 2, length - 1)
    x = x.narrow(-1, window // 2 - reach, 2 * reach + 1)
    x = F.pad(x, (0, length - reach))  # (..., L, L + reach + 1)
    pitch = length + reach
    steps = x.flatten(-2).narrow(-1, reach, length * pitch)
    return steps.reshape(*x.shape[:-1], pitch)[..., :length]


def from_window_body(x: str, y: str, length: str) -> str:
    """Nodes of `from_window` for `x` of five axes, which makes `y`; `length` is that of the last axis but one."""
    return f"""
    {x}_last = Sub ({length}, one)
    {x}_reach = Min (half, {x}_last)
    {x}_start = Sub (half, {x}_reach)
    {x}_above = Add (half, {x}_reach)
    {x}_end = Add ({x}_above, one)
    {x}_near = Slice ({x}, {x}_start, {x}_end, last_axis)
    {x}_lack = Sub ({length}, {x}_reach)
    {x}_pads = Concat <axis = 0> (no_pads, {x}_lack)
    {x}_padded = Pad ({x}_near, {x}_pads)
    {x}_flat = Reshape ({x}_padded, in_one)
    {x}_pitch = Add ({length}, {x}_reach)
    {x}_area = Mul ({length}, {x}_pitch)
    {x}_behind = Add ({x}_reach, {x}_area)
    {x}_steps = Slice ({x}_flat, {x}_reach, {x}_behind, last_axis)
    {x}_in_rows = Concat <axis = 0> (same, {length}, {x}_pitch)
    {x}_still = Reshape ({x}_steps, {x}_in_rows)
    {y} = Slice ({x}_still, zero, {length}, last_axis)
    """


BETWEEN = f"""
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    same = Constant <value_ints = [0, 0, 0]> ()
    in_one = Constant <value_ints = [0, 0, 0, -1]> ()
    no_pads = Constant <value_ints = [0, 0, 0, 0, 0, 0, 0, 0, 0]> ()
    last_axis = Constant <value_ints = [-1]> ()
    side = Constant <value_int: int = @window> ()
    half = Div (side, two)
    sides = Unsqueeze (side, zero)
    height = Shape <start = 2, end = 3> (scores)
    width = Shape <start = 3, end = 4> (scores)
    places = Mul (height, width)
    by_window = Concat <axis = 0> (zero, sides, sides, height, width)
    windows = Reshape (scores, by_window)
    rows = Transpose <perm = [0, 2, 4, 3, 1]> (windows)
    {from_window_body("rows", "between_rows", "height")}
    columns = Transpose <perm = [0, 3, 4, 2, 1]> (between_rows)
    {from_window_body("columns", "between_columns", "width")}
    square = Concat <axis = 0> (zero, places, places)
"""
"""Makes `between_columns`: `(N, H, other H, W, other W)`."""
SOFTMAX = """
    float_says = Cast <to = 1> (says)
    weights = Softmax <axis = 1> (float_says)
    y = CastLike (weights, scores)
"""
MASK_BODY = f"""
    {BETWEEN}
    maps = Transpose <perm = [0, 1, 3, 2, 4]> (between_columns)
    y = Reshape (maps, square)
"""
COLLECT_BODY = f"""
    {BETWEEN}
    maps = Transpose <perm = [0, 2, 4, 1, 3]> (between_columns)
    says = Reshape (maps, square)
    {SOFTMAX}
"""
DISTRIBUTE_BODY = f"""
    {BETWEEN}
    maps = Transpose <perm = [0, 1, 3, 2, 4]> (between_columns)
    says = Reshape (maps, square)
    {SOFTMAX}
"""


# Both kernels read a tile along its diagonals, (place i, place i + d) for one d after the other: these are
# neighbours in memory, as the answer's rows are. A gather among threads turns the ones into the others.
def psa_mask_kernel(  # type: ignore[no-untyped-def]
    scores, window, rows, answer, columns: tl.constexpr, block: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    """A tile of the answer: `span` own positions, `block` others."""
    places = rows * columns
    half = window // 2
    frame = tl.program_id(2).to(tl.int64)
    lane = tl.arange(0, block)
    step = tl.arange(0, span)[:, None]
    other = tl.program_id(0) * block + lane
    first = tl.program_id(1) * span
    own = first + (step + lane) % span
    down = other // columns - own // columns
    along = other % columns - own % columns
    near = (tl.abs(down) <= half) & (tl.abs(along) <= half) & (own < places) & (other < places)
    cell = ((half + down) * window + half + along) * places + own
    score = tl.load(scores + frame * window * window * places + cell, mask=near, other=0.0)
    score = tl.gather(score, (step - lane + span) % span, 0)
    own = first + step
    tl.store(answer + (frame * places + own) * places + other, score, mask=(own < places) & (other < places))


def psa_softmax_kernel(  # type: ignore[no-untyped-def]
    scores, window, rows, answer,
    columns: tl.constexpr, collects: tl.constexpr, lowest: tl.constexpr, block: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    """The weights of `block` positions, `span` partners at a time: once for the sums, once more to write them.

    Where it collects, a position's scores are its own; else they are what its partners say of it.
    """
    places = rows * columns
    half = window // 2
    centre = half * window + half
    frame = tl.program_id(1).to(tl.int64)
    scores += frame * window * window * places
    answer += frame * places * places
    first = tl.program_id(0) * block
    lane = tl.arange(0, block)
    step = tl.arange(0, span)[:, None]
    diagonal = (step + lane) % span
    turn = (step - lane + span) % span
    here = tl.minimum(first + lane, places - 1)
    row = here // columns
    column = here % columns
    near_rows = tl.minimum(row + half, rows - 1) - tl.maximum(row - half, 0) + 1
    near_columns = tl.minimum(column + half, columns - 1) - tl.maximum(column - half, 0) + 1
    # Zeros outside the window are counted, not read. The running sums of a position are added up after the loop.
    zeros = tl.where(step == 0, places - near_rows * near_columns, 0)
    top = tl.where(zeros > 0, 0.0, lowest)
    total = zeros.to(tl.float32)
    begin = tl.maximum(first // columns - half, 0) * columns
    end = tl.minimum((first + block - 1) // columns + half + 1, rows) * columns
    for start in range(begin, end, span):
        there = start + diagonal
        down = there // columns - row
        along = there % columns - column
        near = (tl.abs(down) <= half) & (tl.abs(along) <= half) & (there < places)
        away = down * window + along
        cell = (centre + away) * places + here if collects else (centre - away) * places + there
        score = tl.load(scores + cell, mask=near, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, score)
        total = total * tl.exp(top - higher) + tl.exp(score - higher)
        top = higher
    highest = tl.max(top, 0)
    total = tl.sum(total * tl.exp(top - highest), 0)
    for start in range(0, places, span):
        there = tl.minimum(start + diagonal, places - 1)
        down = there // columns - row
        along = there % columns - column
        near = (tl.abs(down) <= half) & (tl.abs(along) <= half)
        away = down * window + along
        cell = (centre + away) * places + here if collects else (centre - away) * places + there
        score = tl.load(scores + cell, mask=near, other=0.0).to(tl.float32)
        weight = (tl.exp(score - highest) / total).to(answer.dtype.element_ty)
        weight = tl.gather(weight, turn, 0)
        there = start + step
        tl.store(answer + there * places + here, weight, mask=(there < places) & (first + lane < places))


def launch_mask(kernel: Any, scores: Tensor, window: int) -> Tensor:
    """Run the kernel of `psa_mask`."""
    check(scores, window)
    n, _, rows, columns = scores.shape
    places = rows * columns
    answer = scores.new_empty((n, places, places))
    block = 64
    blocks = -(-places // block)
    kernel[(blocks, blocks, n)](
        scores.contiguous(), window, rows, answer, columns=columns, block=block, span=block, num_warps=8
    )
    return answer


def launch_softmax(kernel: Any, scores: Tensor, window: int, *, collects: bool) -> Tensor:
    """Run the kernel of `psa_collect` or of `psa_distribute`."""
    check(scores, window)
    n, _, rows, columns = scores.shape
    places = rows * columns
    answer = scores.new_empty((n, places, places))
    block = 32
    kernel[(-(-places // block), n)](
        scores.contiguous(), window, rows, answer,
        columns=columns, collects=collects, lowest=LOWEST, block=block, span=64, num_warps=8,
    )  # fmt: skip
    return answer


def full_frame(dtype: torch.dtype) -> tuple[Tensor, int]:
    """Scores at 1/16 of 1024x2048, rounded up, for the authors' window."""
    return torch.empty(1, 89 * 89, 65, 129, dtype=dtype, device="meta"), 89


PSA_MASK = Op(
    "PSAMask",
    psa_mask,
    MASK_BODY,
    full_frame=full_frame,
    attributes={"window": "INT"},
    kernel=Kernel(psa_mask_kernel, launch_mask),
)
PSA_COLLECT = Op(
    "PSACollect",
    psa_collect,
    COLLECT_BODY,
    full_frame=full_frame,
    attributes={"window": "INT"},
    kernel=Kernel(psa_softmax_kernel, functools.partial(launch_softmax, collects=True)),
)
PSA_DISTRIBUTE = Op(
    "PSADistribute",
    psa_distribute,
    DISTRIBUTE_BODY,
    full_frame=full_frame,
    attributes={"window": "INT"},
    kernel=Kernel(psa_softmax_kernel, functools.partial(launch_softmax, collects=False)),
)
