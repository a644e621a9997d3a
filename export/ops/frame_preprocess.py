"""Camera frames to what a network takes: cropped, resized, letterboxed and normalised in one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from roadseg.runtime import ModelSpec, Size, UsageError
from roadseg.runtime.backends.torch import Normalise
from roadseg.runtime.pixels import PADDING, inner_size

from .kernel import Kernel
from .op import Attributes, Op
from .upsample_argmax import neighbours, step

if TYPE_CHECKING:
    import triton.language as tl


def frame_preprocess(
    frames: Tensor,
    scale: Sequence[float],
    shift: Sequence[float],
    crop: Sequence[int],
    size: Sequence[int],
    canvas: Sequence[int],
    corner: Sequence[int],
    fill: Sequence[int],
    bgr: bool,
    half: bool,
) -> Tensor:
    """A part of each frame, resized, pasted into a canvas and normalised; computed in FP32 and rounded once.

    The part is resized bilinearly between centres of pixels (`F.interpolate` with `align_corners=False`, without
    antialiasing), rows first. Where `size` is that of the part no pixel changes: what follows is then to the bit
    what `runtime.backends.torch.Normalise` computes. Else every runtime rounds places between pixels to FP32 in
    its own way: in noise of 720x1280 or 1080x1920 ONNX Runtime's answer differs by 2e-4 of the largest.

    Where frames have the model's size, 1024x2048, TensorRT-RTX 1.7.1 makes one kernel of the body, without scratch
    memory, in which Slice, Resize and Pad are gone (its build log for 8.6 names `CastTranLtSeleMulAddCast`): what
    is left over is a comparison and a choice per value. From 1080x1920 it makes two, with the frame in FP32 in
    between. Neither was run on a GPU, and what TensorRT makes of the body was not looked at.

    Args:
        frames: `(N, H, W, 3)` uint8 RGB.
        scale: per channel of the answer, rounded to FP32; what a value of 0 to 255 is multiplied by.
        shift: per channel of the answer, rounded to FP32; what is added then.
        crop: top, left, height and width of the part of a frame that is used, in its pixels.
        size: rows and columns that the part is resized to.
        canvas: rows and columns of the answer.
        corner: row and column of the canvas where the resized part begins.
        fill: red, green and blue of the rest of the canvas, 0 to 255 as in a frame.
        bgr: whether the answer's channels are blue, green, red.
        half: whether the answer is FP16; else it is FP32.

    Returns:
        `(N, 3, *canvas)`.

    Raises:
        UsageError: if the part leaves the frame or the canvas.
    """
    check(frames, crop, size, canvas, corner)
    top, left, height, width = crop
    picture = frames[:, top : top + height, left : left + width].float()  # (N, height, width, 3)
    # F.interpolate is no reference: how it rounds depends on the place in memory.
    for axis in (1, 2):
        low, high, share = neighbours(crop[axis + 1], size[axis - 1], False, frames.device)
        share = share[:, None, None] if axis == 1 else share[:, None]
        picture = picture.index_select(axis, low) * (1 - share) + picture.index_select(axis, high) * share
    images = picture.new_tensor(fill).expand(frames.shape[0], *canvas, 3).clone()
    images[:, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = picture
    if bgr:
        images = images.flip(3)
    images = images * picture.new_tensor(scale) + picture.new_tensor(shift)
    return images.to(answer_type(half)).permute(0, 3, 1, 2).contiguous()


def check(
    frames: Tensor, crop: Sequence[int], size: Sequence[int], canvas: Sequence[int], corner: Sequence[int]
) -> None:
    """Raise UsageError if the part leaves the frame or the canvas: the kernel would leave its memory."""
    frame = frames.shape[1:3]
    if not all(0 <= crop[i] < crop[i] + crop[i + 2] <= frame[i] for i in (0, 1)):
        raise UsageError(
            f"the part of a frame that is used begins at {tuple(crop[:2])} and has {crop[2]}x{crop[3]} pixels; "
            f"it does not lie in frames of {frame[0]}x{frame[1]}."
        )
    if not all(0 <= corner[i] < corner[i] + size[i] <= canvas[i] for i in (0, 1)):
        raise UsageError(
            f"the resized part begins at {tuple(corner)} and has {size[0]}x{size[1]} pixels; it does not lie in "
            f"a canvas of {canvas[0]}x{canvas[1]}."
        )


def answer_type(half: bool) -> torch.dtype:
    """Of the answer."""
    return torch.float16 if half else torch.float32


class Arguments(NamedTuple):
    """What `frame_preprocess` takes besides the frames, in order."""

    scale: list[float]
    shift: list[float]
    crop: list[int]
    size: list[int]
    canvas: list[int]
    corner: list[int]
    fill: list[int]
    bgr: bool
    half: bool


def arguments_for(
    spec: ModelSpec, frame_size: Size, rule: Literal["stretch", "letterbox", "crop"], half: bool = False
) -> Arguments:
    """Bring frames of any one size to the model's, and normalise them for it.

    Args:
        spec: of the model; its own `resize` is not looked at.
        frame_size: rows and columns of the frames.
        rule: "stretch" changes the picture's proportions; "letterbox" keeps them and puts bars around the picture
            as `runtime.pixels.fit` does; "crop" keeps them and leaves out what protrudes, half of it on each side.
        half: whether the network takes FP16.

    Raises:
        UsageError: if there is no such rule.

    >>> arguments_for(ModelSpec("tiny", 512, 512), (720, 1280), "crop").crop
    [0, 280, 720, 720]
    """
    if rule not in ("stretch", "letterbox", "crop"):
        raise UsageError(f"a frame is fitted by stretch, letterbox or crop, not by {rule!r}.")
    normalise = Normalise(spec)
    keeping = dataclasses.replace(spec, resize="letterbox")
    # Cropping is letterboxing the other way round: a picture of the model's size in a canvas of the frame's.
    part = inner_size(spec.size, keeping.resized(frame_size)) if rule == "crop" else frame_size
    size = inner_size(frame_size, keeping) if rule == "letterbox" else spec.size
    return Arguments(
        scale=normalise.scale.flatten().tolist(),
        shift=normalise.shift.flatten().tolist(),
        crop=[*centred(part, frame_size), *part],
        size=[*size],
        canvas=[*spec.size],
        corner=centred(size, spec.size),
        fill=[PADDING] * 3,
        bgr=spec.channels == "bgr",
        half=half,
    )


def centred(inner: Size, outer: Size) -> list[int]:
    """Row and column where `inner` begins in the middle of `outer`."""
    return [(outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2]


# TensorRT takes uint8 only as an input that is cast at once. A body cannot branch: every step is in every graph,
# and changes nothing where it is not wanted. No pixel is negative, so a negative one is a place to fill: padding
# what the fill was subtracted from, and adding it again, would round the picture.
BODY = """
    pixels = Cast <to = 1> (frames)
    starts = Constant <value_ints: ints = @starts> ()
    ends = Constant <value_ints: ints = @ends> ()
    part_axes = Constant <value_ints = [1, 2, 3]> ()
    steps = Constant <value_ints: ints = @steps> ()
    part = Slice (pixels, starts, ends, part_axes, steps)
    planes = Transpose <perm = [0, 3, 1, 2]> (part)
    maps = Shape <start = 0, end = 2> (planes)
    rows_columns = Constant <value_ints: ints = @size> ()
    sizes = Concat <axis = 0> (maps, rows_columns)
    picture = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (planes, , , sizes)
    pads = Constant <value_ints: ints = @pads> ()
    nowhere = Constant <value_float = -1.0> ()
    padded = Pad (picture, pads, nowhere)
    zero = Constant <value_float = 0.0> ()
    outside = Less (padded, zero)
    channel_axes = Constant <value_ints = [1, 2]> ()
    fills = Constant <value_floats: floats = @fill> ()
    fill = Unsqueeze (fills, channel_axes)
    canvas = Where (outside, fill, padded)
    scales = Constant <value_floats: floats = @scale> ()
    scale = Unsqueeze (scales, channel_axes)
    scaled = Mul (canvas, scale)
    shifts = Constant <value_floats: floats = @shift> ()
    shift = Unsqueeze (shifts, channel_axes)
    images = Add (scaled, shift)
    y = Cast <to: int = @to> (images)
"""
FLOAT, FLOAT16 = 1, 10
"""Of ONNX's TensorProto.DataType."""


def to_attributes(**named: Any) -> Attributes:
    """Arguments of `frame_preprocess` as the node has them: rows, columns and channels are sliced, then padded."""
    scale, shift, crop, size, canvas, corner, fill, bgr, half = Arguments(**named)
    top, left, height, width = crop
    below, right = (canvas[i] - corner[i] - size[i] for i in (0, 1))
    # Channels are turned round by a step of -1, to an end before the first.
    first, end, step_between = (2, -4, -1) if bgr else (0, 3, 1)
    attributes: dict[str, Any] = {
        "scale": list(scale),
        "shift": list(shift),
        "fill": [float(value) for value in fill[::step_between]],
        "starts": [top, left, first],
        "ends": [top + height, left + width, end],
        "steps": [1, 1, step_between],
        "size": list(size),
        "pads": [0, 0, *corner, 0, 0, below, right],
        "to": FLOAT16 if half else FLOAT,
    }
    return attributes


def from_attributes(**attributes: Any) -> Arguments:
    """`to_attributes`, undone."""
    top, left, first = attributes["starts"]
    bottom, right, _ = attributes["ends"]
    _, _, *corner, _, _, below, beside = attributes["pads"]
    size, bgr = list(attributes["size"]), first == 2
    return Arguments(
        scale=list(attributes["scale"]),
        shift=list(attributes["shift"]),
        crop=[top, left, bottom - top, right - left],
        size=size,
        canvas=[corner[0] + size[0] + below, corner[1] + size[1] + beside],
        corner=corner,
        fill=[int(value) for value in attributes["fill"][:: -1 if bgr else 1]],
        bgr=bgr,
        half=attributes["to"] == FLOAT16,
    )


def frame_preprocess_kernel(  # type: ignore[no-untyped-def]
    frames, frame_rows, frame_columns, top, left, height, width, rows, columns, canvas_rows, canvas_columns,
    corner_top, corner_left, answer,
    scale: tl.constexpr, shift: tl.constexpr, fill: tl.constexpr, first: tl.constexpr, order: tl.constexpr,
    row_step: tl.constexpr, column_step: tl.constexpr, resized: tl.constexpr, packed: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """A block of pixels in one row of the answer, in all channels: channel c is the frame's `first + order * c`.

    Where no pixel is mixed with others and four of them begin at a word, they are read as three words.
    """
    x = tl.program_id(0) * block + tl.arange(0, block)
    y = tl.program_id(1)
    frame = tl.program_id(2).to(tl.int64)
    row = y - corner_top
    column = x - corner_left
    end = tl.where((row >= 0) & (row < rows), columns, 0)
    inside = (column >= 0) & (column < end)
    part = frames + ((frame * frame_rows + top) * frame_columns + left) * 3
    if resized:
        place = tl.minimum(tl.maximum((row + 0.5) * row_step - 0.5, 0.0), height - 1)
        upper = place.to(tl.int32)
        lower = tl.minimum(upper + 1, height - 1)
        down = place - upper
        places = tl.minimum(tl.maximum((column + 0.5) * column_step - 0.5, 0.0), width - 1)
        before = places.to(tl.int32)
        after = tl.minimum(before + 1, width - 1)
        along = places - before
        upper_before = part + (upper * frame_columns + before) * 3
        lower_before = part + (lower * frame_columns + before) * 3
        upper_after = part + (upper * frame_columns + after) * 3
        lower_after = part + (lower * frame_columns + after) * 3
    elif packed:
        group = tl.program_id(0) * (block // 4) + tl.arange(0, block // 4) - corner_left // 4
        in_row = (group >= 0) & (group < end // 4)
        words = (part + row * frame_columns * 3).to(tl.pointer_type(tl.uint32)) + 3 * group
        word = tl.load(words, mask=in_row, other=0)
        next_word = tl.load(words + 1, mask=in_row, other=0)
        last_word = tl.load(words + 2, mask=in_row, other=0)
        # Each pixel's bytes, lowest first, in the lower 24 bits of a word of its own.
        second = (word >> 24) | (next_word << 8)
        third = (next_word >> 16) | (last_word << 16)
        pixels = tl.interleave(tl.interleave(word, third), tl.interleave(second, last_word >> 8))
    else:
        bytes_of_row = part + (row * frame_columns + column) * 3
    for c in tl.static_range(3):
        if resized:
            at = first + order * c
            above = tl.load(upper_before + at, mask=inside, other=0).to(tl.float32) * (1 - down)
            left_value = above + tl.load(lower_before + at, mask=inside, other=0).to(tl.float32) * down
            above = tl.load(upper_after + at, mask=inside, other=0).to(tl.float32) * (1 - down)
            right_value = above + tl.load(lower_after + at, mask=inside, other=0).to(tl.float32) * down
            value = left_value * (1 - along) + right_value * along
        elif packed:
            value = ((pixels >> (8 * (first + order * c))) & 255).to(tl.float32)
        else:
            value = tl.load(bytes_of_row + first + order * c, mask=inside, other=0).to(tl.float32)
        value = tl.where(inside, value, fill[c]) * scale[c] + shift[c]
        to_row = answer + ((frame * 3 + c) * canvas_rows + y) * canvas_columns
        tl.store(to_row + x, value.to(answer.dtype.element_ty), mask=x < canvas_columns)


def launch(kernel: Any, frames: Tensor, *args: Any) -> Tensor:
    """Run the kernel."""
    scale, shift, crop, size, canvas, corner, fill, bgr, half = Arguments(*args)
    check(frames, crop, size, canvas, corner)
    frames = frames.contiguous()
    n, rows, columns, _ = frames.shape
    answer = frames.new_empty((n, 3, *canvas), dtype=answer_type(half))
    row_step, column_step = (step(crop[i + 2], size[i], False) for i in (0, 1))
    resized = list(size) != list(crop[2:])
    grid_rows, grid_columns = canvas
    if list(crop) == [0, 0, rows, columns] and list(size) == list(canvas) and not resized:
        # Nothing lies between the rows: they are one.
        rows, columns = 1, rows * columns
        crop, size, grid_rows, grid_columns = [0, 0, rows, columns], [rows, columns], rows, columns
    starts_of_words = (columns, crop[1], size[1], corner[1], frames.data_ptr())
    # Four neighbours per thread, as they are unpacked: with eight, Triton moves FP16 through shared memory first.
    block = 256 if resized else 512 if half else 1024
    kernel[(-(-grid_columns // block), grid_rows, n)](
        frames, rows, columns, *crop, *size, grid_rows, grid_columns, *corner, answer,
        scale=tuple(scale), shift=tuple(shift), fill=tuple(map(float, fill[::-1] if bgr else fill)),
        first=2 if bgr else 0, order=-1 if bgr else 1, row_step=row_step, column_step=column_step, resized=resized,
        packed=not resized and all(place % 4 == 0 for place in starts_of_words), block=block,
    )  # fmt: skip
    return answer


def full_frame(dtype: torch.dtype) -> tuple[Any, ...]:
    """Frames of the model's own size."""
    size = (1024, 2048)
    frames = torch.empty(1, *size, 3, dtype=torch.uint8, device="meta")
    return frames, *arguments_for(ModelSpec("full", *size), size, "stretch", half=dtype == torch.float16)


FRAME_PREPROCESS = Op(
    "FramePreprocess",
    frame_preprocess,
    BODY,
    full_frame=full_frame,
    attributes={
        "scale": "FLOATS",
        "shift": "FLOATS",
        "fill": "FLOATS",
        "starts": "INTS",
        "ends": "INTS",
        "steps": "INTS",
        "size": "INTS",
        "pads": "INTS",
        "to": "INT",
    },
    convert=to_attributes,
    revert=from_attributes,
    kernel=Kernel(frame_preprocess_kernel, launch),
)
