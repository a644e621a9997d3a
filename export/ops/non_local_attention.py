"""What every position of a map gathers from all positions of another, or of the same, in one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roadseg.runtime import UsageError

from .kernel import LARGE, TENSOR_CORES, Kernel, power_of_two
from .op import Op, at_least_float

if TYPE_CHECKING:
    import triton.language as tl

TILE = 4096
"""Queries that the reference answers at once."""
TILES = 8
"""Parts of the queries that the body answers one after the other."""
UNIT = 2.0**15
"""What a weight of 1 becomes before it is rounded to the values' type: FP16 then holds weights down to 2^-39 and
not 2^-24, for each of 32768 equal ones is 2^-15, and many small ones may outweigh a large one."""


def non_local_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Every position of the query gathers the values of all positions of the key.

    `softmax(scale * q.k)` weighs the values: PAM of DANet (arXiv 1809.02983) with a scale of 1, the object context
    of OCNet (arXiv 1809.00916) with D^-1/2, the embedded Gaussian of non-local networks (Wang et al., arXiv
    1711.07971, section 3.2). All is computed in FP32 and rounded at the end; energies may leave FP16's range.

    Tiles of 4096 queries are answered one after the other. The 32768 positions of DANet at 1024x2048 have 4.3 GB
    of energies in FP32 and as much of weights, a tile 537 MB of each: with them the ONNX body takes 1.2 GB at its
    peak. The kernel takes nothing beside inputs and answer, 75 MB in FP16. A gradient keeps the weights of all
    tiles.

    Args:
        query: `(N, D, H, W)`, FP16 or FP32.
        key: `(N, D, H2, W2)`, of the same type.
        value: `(N, C, H2, W2)`, of the same type.
        scale: of the products of query and key.

    Returns:
        `(N, C, H, W)`, of the same type.

    Raises:
        UsageError: if the shapes or types do not belong together.
    """
    check(query, key, value)
    queries = at_least_float(query).flatten(2).transpose(1, 2)  # (N, H*W, D)
    keys = at_least_float(key).flatten(2)  # (N, D, H2*W2)
    values = at_least_float(value).flatten(2).transpose(1, 2)  # (N, H2*W2, C)
    tiles = torch.split(queries, TILE, dim=1)
    gathered = [torch.softmax(scale * (tile @ keys), dim=-1) @ values for tile in tiles]
    maps = torch.cat(gathered, dim=1).transpose(1, 2).reshape(*value.shape[:2], *query.shape[2:])
    return maps.to(value.dtype).contiguous()


def check(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise UsageError if the shapes or types do not belong together: the kernel would leave its memory."""
    apart = (key.shape[0], *key.shape[2:]) != (value.shape[0], *value.shape[2:])
    if query.shape[:2] != key.shape[:2] or apart or not query.dtype == key.dtype == value.dtype:
        raise UsageError(
            "NonLocalAttention takes a query (N, D, H, W), a key (N, D, H2, W2) and a value (N, C, H2, W2) of one "
            f"type; got {', '.join(f'{tuple(x.shape)} {x.dtype}' for x in (query, key, value))}."
        )


# Queries become nothing if the squares of what the tile before gathered add up to less than zero, which they never
# do. It is there to be waited for: TensorRT-RTX 1.7 answers tiles that do not depend on each other at the same
# time, those of DANet in 8.7 GB, and these in 1.2 GB.
WAIT_FOR_TILE = """
    squares_{before} = ReduceSumSquare <keepdims = 0> (gathered_{before})
    never_{before} = Less (squares_{before}, zero)
    waiting_{i} = Where (never_{before}, nothing, queries_{i})
"""
ANSWER_TILE = """
    float_{i} = Cast <to = 1> (waiting_{i})
    energies_{i} = MatMul (float_{i}, float_keys)
    scaled_{i} = Mul (energies_{i}, scale)
    weights_{i} = Softmax <axis = -1> (scaled_{i})
    units_{i} = Mul (weights_{i}, unit)
    rounded_{i} = CastLike (units_{i}, value)
    back_{i} = Cast <to = 1> (rounded_{i})
    gathered_{i} = MatMul (back_{i}, float_values)
"""


def answer_tiles() -> str:
    """Nodes from `queries_0` and so on to `gathered_0` and so on, one tile after the other."""
    waits = ["waiting_0 = Identity (queries_0)"]
    waits += [WAIT_FOR_TILE.format(i=i, before=i - 1) for i in range(1, TILES)]
    return "".join(wait + ANSWER_TILE.format(i=i) for i, wait in enumerate(waits))


# (L + i) / 8, rounded down, for i from 0 to 7 add up to L whatever it is (Hermite's identity): the tiles' lengths.
# Of fewer than 8 queries the first tiles are empty.
#
# Energies come out of their product in FP32, whose range they need. What is multiplied has been in the input's
# type, the weights too: TensorRT may make casts and product one operation on FP16 numbers that accumulates in
# FP32, as Torch-TensorRT's `use_fp32_acc` has it (https://github.com/pytorch/TensorRT/pull/3110). TensorRT-RTX 1.7
# does not, and multiplies in FP32. Products of FP16 tensors would be free to accumulate in FP16, where the sum of
# 32768 equal weights stands still at a sixteenth.
BODY = f"""
    scale = Constant <value_float: float = @scale> ()
    unit = Constant <value_float = {UNIT}> ()
    zero = Constant <value_float = 0.0> ()
    nothing = CastLike (zero, query)
    flat = Constant <value_ints = [0, 0, -1]> ()
    flat_query = Reshape (query, flat)
    keys = Reshape (key, flat)
    flat_value = Reshape (value, flat)
    queries = Transpose <perm = [0, 2, 1]> (flat_query)
    values = Transpose <perm = [0, 2, 1]> (flat_value)
    float_keys = Cast <to = 1> (keys)
    float_values = Cast <to = 1> (values)
    length = Shape <start = 1, end = 2> (queries)
    rising = Constant <value_ints = {list(range(TILES))}> ()
    tiles = Constant <value_int = {TILES}> ()
    sums = Add (length, rising)
    lengths = Div (sums, tiles)
    {", ".join(f"queries_{i}" for i in range(TILES))} = Split <axis = 1> (queries, lengths)
    {answer_tiles()}
    gathered = Concat <axis = 1> ({", ".join(f"gathered_{i}" for i in range(TILES))})
    mean = Div (gathered, unit)
    answers = CastLike (mean, value)
    channels = Transpose <perm = [0, 2, 1]> (answers)
    frames = Shape <start = 0, end = 2> (value)
    size = Shape <start = 2, end = 4> (query)
    shape = Concat <axis = 0> (frames, size)
    y = Reshape (channels, shape)
"""

BODY_ATTENTION = """
    flat = Constant <value_ints = [0, 0, -1]> ()
    head = Constant <value_ints = [1]> ()
    flat_query = Reshape (query, flat)
    flat_key = Reshape (key, flat)
    flat_value = Reshape (value, flat)
    query_head = Unsqueeze (flat_query, head)
    key_head = Unsqueeze (flat_key, head)
    value_head = Unsqueeze (flat_value, head)
    queries = Transpose <perm = [0, 1, 3, 2]> (query_head)
    keys = Transpose <perm = [0, 1, 3, 2]> (key_head)
    values = Transpose <perm = [0, 1, 3, 2]> (value_head)
    answers = Attention <scale: float = @scale> (queries, keys, values)
    channels = Transpose <perm = [0, 1, 3, 2]> (answers)
    frames = Shape <start = 0, end = 2> (value)
    size = Shape <start = 2, end = 4> (query)
    shape = Concat <axis = 0> (frames, size)
    y = Reshape (channels, shape)
"""
"""The same by the `Attention` of opset 23, with one head of D for queries and keys and of C for values. It is
not what is exported: TensorRT-RTX 1.7 takes it only where D is C, and not if it asks for a softmax in FP32. So by
its definition all energies are held at once, in the input's type, and `scale` may not be negative."""


def non_local_attention_kernel(  # type: ignore[no-untyped-def]
    query, key, value, positions, places, depth, channels, answer,
    scale: tl.constexpr, log2_e: tl.constexpr, unit: tl.constexpr, whole: tl.constexpr, part: tl.constexpr,
    block: tl.constexpr, block_places: tl.constexpr, block_channels: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """A block of queries, and a block of the channels that they gather, from a block of places after the other.

    No energy is stored: what has been gathered is scaled down whenever a higher energy than all before turns up.
    Queries stay if `part` holds all of D (`whole`), else they come once more, part by part, with every block of
    keys.
    """
    x = tl.program_id(0) * block + tl.arange(0, block)[:, None]
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)[None, :]
    frame = tl.program_id(2).to(tl.int64)
    inside = x < positions
    known = c < channels
    query += frame * depth * positions + x
    key += frame * depth * places
    value += frame * channels * places + c * places
    d = tl.arange(0, part)
    if whole:
        q = tl.load(query + d[None, :] * positions, mask=inside & (d < depth)[None, :], other=0)
    highest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    gathered = tl.zeros([block, block_channels], tl.float32)
    for first in range(0, places, block_places):
        place = first + tl.arange(0, block_places)
        present = place < places
        v = tl.load(value + place[:, None], mask=present[:, None] & known, other=0)
        energy = tl.zeros([block, block_places], tl.float32)
        if whole:
            near = (d < depth)[:, None] & present[None, :]
            k = tl.load(key + d[:, None] * places + place[None, :], mask=near, other=0)
            energy = tl.dot(q, k, energy, input_precision=precision)
        else:
            for start in range(0, depth, part):
                e = start + d
                q = tl.load(query + e[None, :] * positions, mask=inside & (e < depth)[None, :], other=0)
                near = (e < depth)[:, None] & present[None, :]
                k = tl.load(key + e[:, None] * places + place[None, :], mask=near, other=0)
                energy = tl.dot(q, k, energy, input_precision=precision)
        energy = tl.where(present[None, :], energy * scale, float("-inf"))
        higher = tl.maximum(highest, tl.max(energy, axis=1))
        # Energies are large, their differences are not where they matter: those are turned into powers of 2.
        fading = tl.exp2((highest - higher) * log2_e)
        weight = tl.exp2((energy - higher[:, None]) * log2_e)
        total = total * fading + tl.sum(weight, axis=1)
        weight = (weight * unit).to(v.dtype)
        gathered = tl.dot(weight, v, gathered * fading[:, None], input_precision=precision)
        highest = higher
    gathered = gathered / (total * unit)[:, None]
    answer += frame * channels * positions + c * positions
    tl.store(answer + x, gathered.to(answer.dtype.element_ty), mask=inside & known)


def launch(kernel: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Run the kernel.

    More channels than a program has registers for are gathered by several, each of which computes the energies.
    With blocks of 256 channels, DANet takes 2 * 64 + 512 products for each pair of positions and not 64 + 512,
    11 % more; with D = C = 512 it is 50 % more.
    """
    check(query, key, value)
    n, depth, *size = query.shape
    channels = value.shape[1]
    positions, places = math.prod(size), math.prod(value.shape[2:])
    answer = value.new_empty((n, channels, *size))
    half = value.dtype == torch.float16
    aligned = positions % 16 == places % 16 == 0
    block, block_places, most, precision, warps, stages = blocks(kernel.architecture, half, aligned)
    block_channels = padded(channels, most)
    whole = depth <= 64
    part = padded(depth, 64 if half or whole else 32)
    kernel[(-(-positions // block), -(-channels // block_channels), n)](
        query.contiguous(), key.contiguous(), value.contiguous(), positions, places, depth, channels, answer,
        scale=scale, log2_e=math.log2(math.e), unit=UNIT, whole=whole, part=part,
        block=block, block_places=block_places, block_channels=block_channels, precision=precision,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return answer


def blocks(architecture: int, half: bool, aligned: bool) -> tuple[int, int, int, str, int, int]:
    """Queries, places and channels at most that a program takes at a time, precision of products, warps, stages.

    A product of FP32 numbers is made of three of TF32 numbers, which tensor cores compute: it is as exact. Where
    lengths are no multiples of 16 nothing is aligned, and loads go by elements: larger blocks spill then.
    """
    if architecture not in TENSOR_CORES:
        return 32, 16, 128, "ieee", 8, 2
    large = architecture in LARGE and aligned
    if half:
        return (128, 64, 256, "ieee", 8, 3) if large else (64, 32, 256, "ieee", 8, 2)
    if not aligned:
        return 32, 16, 128, "tf32x3", 4, 2
    return (128, 32, 128, "tf32x3", 8, 3) if large else (64, 32, 64, "tf32x3", 4, 2)


def padded(length: int, most: int) -> int:
    """A power of two that holds `length`, at least the 16 that `tl.dot` asks for and at most `most`."""
    return min(power_of_two(max(16, length)), most)


def full_frame(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, float]:
    """Query, key and value of DANet's 512 channels, at 1/8 of 1024x2048."""
    query, key, value = (torch.empty(1, c, 128, 256, dtype=dtype, device="meta") for c in (64, 64, 512))
    return query, key, value, 1.0


NON_LOCAL_ATTENTION = Op(
    "NonLocalAttention",
    non_local_attention,
    BODY,
    full_frame=full_frame,
    attributes={"scale": "FLOAT"},
    kernel=Kernel(non_local_attention_kernel, launch),
)
