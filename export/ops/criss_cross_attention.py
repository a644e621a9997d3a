"""What every position of a map gathers from its column and its row, in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import Kernel
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
    part: tl.constexpr, above: tl.constexpr, beside: tl.constexpr, block: tl.constexpr,
    block_channels: tl.constexpr,
):  # fmt: skip
    """A block of positions in one row, and a block of the channels that they gather.

    Weights are relative to the highest energy so far; what was gathered fades when a higher one turns up. First
    comes the column, `above` keys of each position at a time. It has the position itself, so that there always is
    a highest energy. Then comes the row, `beside` keys of all at a time. Energies are summed over `part` channels
    at a time.

    Shapes are constants: addresses then differ by constants, and take far fewer registers.
    """
    y = tl.program_id(0)
    x = tl.program_id(1) * block + tl.arange(0, block)
    blocks = -(-channels // block_channels)
    frame = (tl.program_id(2) // blocks).to(tl.int64)
    c = tl.program_id(2) % blocks * block_channels + tl.arange(0, block_channels)
    inside = x < columns
    known = c < channels
    plane = rows * columns
    query += frame * depth * plane + y * columns
    key += frame * depth * plane
    value += frame * channels * plane

    highest = tl.full([block], float("-inf"), tl.float32)
    total = tl.full([block], 0.0, tl.float32)
    gathered = tl.full([block_channels, block], 0.0, tl.float32)
    for start in range(0, rows, above):
        j = start + tl.arange(0, above)
        energy = tl.full([above, block], 0.0, tl.float32)
        for first in range(0, depth, part):
            d = first + tl.arange(0, part)[:, None, None]
            near = (d < depth) & inside[None, None, :]
            q = tl.load(query + d * plane + x[None, None, :], mask=near, other=0)
            k = tl.load(
                key + d * plane + j[None, :, None] * columns + x[None, None, :],
                mask=near & (j < rows)[None, :, None], other=0,
            )  # fmt: skip
            energy += tl.sum(q.to(tl.float32) * k.to(tl.float32), axis=0)
        energy = tl.where((j < rows)[:, None], energy, float("-inf"))
        higher = tl.maximum(highest, tl.max(energy, axis=0))
        weight = tl.exp(energy - higher[None, :])
        fading = tl.exp(highest - higher)
        v = tl.load(
            value + c[None, :, None] * plane + j[:, None, None] * columns + x[None, None, :],
            mask=(j < rows)[:, None, None] & known[None, :, None] & inside[None, None, :], other=0,
        )  # fmt: skip
        total = total * fading + tl.sum(weight, axis=0)
        gathered = gathered * fading[None, :] + tl.sum(weight[:, None, :] * v.to(tl.float32), axis=0)
        highest = higher

    gathered = tl.trans(gathered)
    key += y * columns
    value += y * columns
    for start in range(0, columns, beside):
        j = start + tl.arange(0, beside)
        energy = tl.full([block, beside], 0.0, tl.float32)
        for first in range(0, depth, part):
            d = first + tl.arange(0, part)[:, None]
            q = tl.load(query + d * plane + x[None, :], mask=(d < depth) & inside[None, :], other=0)
            k = tl.load(key + d * plane + j[None, :], mask=(d < depth) & (j < columns)[None, :], other=0)
            energy = tl.dot(tl.trans(q), k, energy, input_precision="ieee")
        # The column has had each position itself.
        energy = tl.where((j < columns)[None, :] & (j[None, :] != x[:, None]), energy, float("-inf"))
        higher = tl.maximum(highest, tl.max(energy, axis=1))
        weight = tl.exp(energy - higher[:, None])
        fading = tl.exp(highest - higher)
        v = tl.load(value + c[:, None] * plane + j[None, :], mask=known[:, None] & (j < columns)[None, :], other=0)
        total = total * fading + tl.sum(weight, axis=1)
        gathered = tl.dot(weight.to(v.dtype), tl.trans(v), gathered * fading[:, None], input_precision="ieee")
        highest = higher

    gathered = tl.trans(gathered / total[:, None])
    answer += frame * channels * plane + y * columns
    tl.store(
        answer + c[:, None] * plane + x[None, :], gathered.to(answer.dtype.element_ty),
        mask=known[:, None] & inside[None, :],
    )  # fmt: skip


def launch(kernel: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Run the kernel."""
    check(query, key, value)
    n, depth, rows, columns = query.shape
    channels = value.shape[1]
    answer = value.new_empty(value.shape)
    block = 32
    # Each block of channels computes the energies anew: with 64 channels of keys and 512 of values that is a third
    # more to multiply than one block would take, whose sums do not fit into registers.
    block_channels = min(128, power_of_two(channels))
    # Each row reads the values of whole columns. Rows go first: programs that run together find them in the cache.
    kernel[(rows, -(-columns // block), n * -(-channels // block_channels))](
        query.contiguous(), key.contiguous(), value.contiguous(), answer,
        depth=depth, channels=channels, rows=rows, columns=columns, part=min(64, power_of_two(depth)), above=2,
        beside=32, block=block, block_channels=block_channels, num_warps=8, num_stages=2,
    )  # fmt: skip
    return answer


def power_of_two(size: int) -> int:
    """The smallest that holds `size`, at least the 16 that `tl.dot` takes."""
    return max(16, 1 << (size - 1).bit_length())


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
)
