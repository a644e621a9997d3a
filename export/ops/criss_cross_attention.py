"""What every position of a map gathers from its column and its row, in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import LARGE, TENSOR_CORES, Kernel, power_of_two
from .op import Op, at_least_float

if TYPE_CHECKING:
    import triton.language as tl

REPEATED = -1e4
"""Added to the energy of a position with itself in its column, which its row has once more: its weight becomes 0,
as with -inf, which would spoil the ranges that INT8 calibration finds."""


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every position gathers from its column and its row, itself once (CCNet, arXiv 1811.11721).

    The weights are the softmax of the H + W - 1 products of its query with their keys, which are not scaled. All
    is computed in FP32 and rounded at the end.

    Args:
        query: `(N, D, H, W)`, FP16 or FP32.
        key: `(N, D, H, W)`, of the same type.
        value: `(N, C, H, W)`, of the same type.

    Returns:
        `(N, C, H, W)`, of the same type.

    Raises:
        UsageError: if the shapes or types do not belong together.
    """
    check(query, key, value)
    queries, keys, values = (at_least_float(x) for x in (query, key, value))
    rows = query.shape[2]
    own = REPEATED * torch.eye(rows, dtype=queries.dtype, device=query.device)
    column = torch.einsum("ndyx,ndjx->nyxj", queries, keys) + own[:, None]  # (N, H, W, H)
    row = torch.einsum("ndyx,ndyj->nyxj", queries, keys)  # (N, H, W, W)
    weights = torch.cat([column, row], dim=3).softmax(dim=3)  # (N, H, W, H + W)
    from_column = torch.einsum("nyxj,ncjx->ncyx", weights[..., :rows], values)
    from_row = torch.einsum("nyxj,ncyj->ncyx", weights[..., rows:], values)
    return (from_column + from_row).to(value.dtype).contiguous()


def check(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise UsageError if the shapes or types do not belong together: the kernel would leave its memory."""
    apart = (query.shape[0], *query.shape[2:]) != (value.shape[0], *value.shape[2:])
    if query.shape != key.shape or apart or not query.dtype == key.dtype == value.dtype:
        raise UsageError(
            "CrissCrossAttention takes a query and a key of one shape (N, D, H, W), a value (N, C, H, W), and all "
            f"of one type; got {', '.join(f'{tuple(x.shape)} {x.dtype}' for x in (query, key, value))}."
        )


BODY = f"""
    queries = Cast <to = 1> (query)
    keys = Cast <to = 1> (key)
    values = Cast <to = 1> (value)
    rows = Shape <start = 2, end = 3> (query)
    columns = Shape <start = 3, end = 4> (query)
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    end = Squeeze (rows)
    places = Range (zero, end, one)
    apart = Constant <value_ints = [1, 2]> ()
    here = Unsqueeze (places, apart)
    same = Equal (here, places)
    repeated = Constant <value_float = {REPEATED}> ()
    once = Constant <value_float = 0.0> ()
    own = Where (same, repeated, once)
    column = Einsum <equation = "ndyx,ndjx->nyxj"> (queries, keys)
    other = Add (column, own)
    row = Einsum <equation = "ndyx,ndyj->nyxj"> (queries, keys)
    energies = Concat <axis = 3> (other, row)
    weights = Softmax <axis = 3> (energies)
    lengths = Concat <axis = 0> (rows, columns)
    of_column, of_row = Split <axis = 3> (weights, lengths)
    from_column = Einsum <equation = "nyxj,ncjx->ncyx"> (of_column, values)
    from_row = Einsum <equation = "nyxj,ncyj->ncyx"> (of_row, values)
    gathered = Add (from_column, from_row)
    y = CastLike (gathered, value)
"""


def criss_cross_attention_kernel(  # type: ignore[no-untyped-def]
    query, key, value, answer,
    depth: tl.constexpr, channels: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
    part: tl.constexpr, tall: tl.constexpr, wide: tl.constexpr, keys: tl.constexpr,
    block_channels: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """A tile of `tall` rows and `wide` columns, and a block of the channels that its positions gather.

    `keys` at a time, it goes down the tile's columns and then along its rows. Products are those of all positions
    with all keys, which tensor cores are fast at; those of other columns, and then of other rows, are left out of
    the softmax. Weights are relative to the highest energy so far; what was gathered fades when a higher one turns
    up. The columns have the positions themselves, so that there always is a highest energy.

    Shapes are constants: addresses then differ by constants, and take far fewer registers.
    """
    top = tl.program_id(0) * tall
    left = tl.program_id(1) * wide
    place = tl.arange(0, tall * wide)[:, None]
    y = top + place // wide
    x = left + place % wide
    inside = (y < rows) & (x < columns)
    blocks: tl.constexpr = (channels + block_channels - 1) // block_channels
    frame = (tl.program_id(2) // blocks).to(tl.int64)
    c = tl.program_id(2) % blocks * block_channels + tl.arange(0, block_channels)[None, :]
    lane = tl.arange(0, keys)
    d = tl.arange(0, part)
    plane: tl.constexpr = rows * columns
    whole: tl.constexpr = depth <= part
    query += frame * depth * plane
    key += frame * depth * plane
    value += frame * channels * plane
    if whole:
        q = tl.load(query + (y * columns + x) + d[None, :] * plane, mask=inside & (d < depth)[None, :], other=0)
    highest = tl.full([tall * wide], float("-inf"), tl.float32)
    total = tl.zeros([tall * wide], tl.float32)
    gathered = tl.zeros([tall * wide, block_channels], tl.float32)
    above: tl.constexpr = keys // wide
    beside: tl.constexpr = keys // tall
    steps_down: tl.constexpr = (rows + above - 1) // above
    steps_along: tl.constexpr = (columns + beside - 1) // beside
    for step in range(steps_down + steps_along):
        down = step < steps_down
        key_y = tl.where(down, step * above + lane // wide, top + lane // beside)
        key_x = tl.where(down, left + lane % wide, (step - steps_down) * beside + lane % beside)
        present = (key_y < rows) & (key_x < columns)
        at = key_y * columns + key_x
        energy = tl.zeros([tall * wide, keys], tl.float32)
        for first in tl.static_range(0, depth, part):
            e = first + d
            if not whole:
                known = inside & (e < depth)[None, :]
                q = tl.load(query + (y * columns + x) + e[None, :] * plane, mask=known, other=0)
            near = (e < depth)[:, None] & present[None, :]
            k = tl.load(key + at[None, :] + e[:, None] * plane, mask=near, other=0)
            energy = tl.dot(q, k, energy, input_precision=precision)
        # The column has had each position itself.
        same_column = key_x[None, :] == x
        same_row = key_y[None, :] == y
        seen = present[None, :] & ((down & same_column) | (~down & same_row & ~same_column))
        energy = tl.where(seen, energy, float("-inf"))
        higher = tl.maximum(highest, tl.max(energy, axis=1))
        weight = tl.exp(energy - higher[:, None])
        fading = tl.exp(highest - higher)
        v = tl.load(value + at[:, None] + c * plane, mask=present[:, None] & (c < channels), other=0)
        total = total * fading + tl.sum(weight, axis=1)
        gathered = tl.dot(weight.to(v.dtype), v, gathered * fading[:, None], input_precision=precision)
        highest = higher
    gathered = (gathered / total[:, None]).to(answer.dtype.element_ty)
    answer += frame * channels * plane
    tl.store(answer + (y * columns + x) + c * plane, gathered, mask=inside & (c < channels))


def launch(kernel: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Run the kernel."""
    check(query, key, value)
    n, depth, rows, columns = query.shape
    channels = value.shape[1]
    answer = value.new_empty(value.shape)
    tall, keys, most, warps, precision = blocks(kernel.architecture, value.dtype == torch.float16)
    wide = 16
    # Each block of channels computes the energies anew, but the sums of all would not fit into registers.
    # `tl.dot` asks for 16 at least.
    block_channels = min(most, power_of_two(max(16, channels)))
    kernel[(-(-rows // tall), -(-columns // wide), n * -(-channels // block_channels))](
        query.contiguous(), key.contiguous(), value.contiguous(), answer,
        depth=depth, channels=channels, rows=rows, columns=columns,
        part=power_of_two(max(16, depth)) if depth <= 64 else 32, tall=tall, wide=wide, keys=keys,
        block_channels=block_channels, precision=precision, num_warps=warps, num_stages=1,
    )  # fmt: skip
    return answer


def blocks(architecture: int, half: bool) -> tuple[int, int, int, int, str]:
    """Rows of a tile, keys at a time, channels at most, warps, and precision of products.

    A product of FP32 numbers is made of three of TF32 numbers, which tensor cores compute: it is as exact.
    """
    if architecture not in TENSOR_CORES:
        return 2, 16, 64, 8, "ieee"
    large = architecture in LARGE
    if half:
        return (4, 64, 128, 4, "ieee") if large else (4, 32, 128, 8, "ieee")
    return 4, 32, 128 if large else 64, 4, "tf32x3"


def full_frame(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of CCNet's 512 channels, at 1/8 of 1024x2048 as its pooling rounds it."""
    query, key, value = (torch.empty(1, c, 129, 257, dtype=dtype, device="meta") for c in (64, 64, 512))
    return query, key, value


CRISS_CROSS_ATTENTION = Op(
    "CrissCrossAttention",
    criss_cross_attention,
    BODY,
    full_frame=full_frame,
    kernel=Kernel(criss_cross_attention_kernel, launch),
    kernel_types=[torch.float16],  # docs/gpu.md: in FP32 the reference is faster
)
