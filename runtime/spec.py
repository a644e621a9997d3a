"""The contract for pixels: what goes into a model and what comes out of it."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from .errors import SpecError, UsageError
from .labels import CAMVID, CITYSCAPES, IGNORE, UNLABELLED, LabelSet

Size = tuple[int, int]
"""Rows and columns, in pixels."""


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What goes into a model and what comes out of it.

    Written once, at export; training, calibration, evaluation and every backend read it from the model.
    """

    name: str
    """Key in train.MODELS, e.g. "fastscnn", or "package.module:factory" of a network from outside."""
    height: int
    """Input rows, in pixels."""
    width: int
    """Input columns, in pixels."""
    classes: tuple[str, ...] = CITYSCAPES.classes
    """Class names by train id."""
    palette: tuple[tuple[int, int, int], ...] = ()
    """RGB per class; empty takes the known colours of these classes, or evenly spread hues."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Channel order the network was trained on. Frames are RGB everywhere; the model reorders them itself."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per channel in `channels` order, of images scaled to [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per channel in `channels` order, of images scaled to [0, 1]."""
    resize: Literal["stretch", "letterbox"] = "stretch"
    """How a frame of another size is brought to `height` x `width` before the model."""
    align_corners: bool = True
    """How the network's logits are upsampled to the frame."""
    ignore_label: int = IGNORE
    """Label of pixels without an answer."""
    io: Literal["frame", "tensor"] = "frame"
    """"frame": uint8 `(N, H, W, 3)` RGB in, uint8 `(N, H, W)` out. "tensor": normalised float32
    `(N, 3, H, W)` in, float logits `(N, classes, H, W)` out."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise SpecError(f"{self.name}: height and width must be positive, got {self.height}x{self.width}.")
        if not 1 <= len(self.classes) <= IGNORE:
            raise SpecError(f"{self.name}: a model has 1 to {IGNORE} classes, got {len(self.classes)}.")
        if self.palette and len(self.palette) != len(self.classes):
            raise SpecError(
                f"{self.name}: the palette has {len(self.palette)} colours for {len(self.classes)} classes; "
                "give one RGB triple per class, or none."
            )
        if any(not 0 <= value <= 255 for colour in self.palette for value in colour):
            raise SpecError(f"{self.name}: the colours of the palette are RGB from 0 to 255, got {self.palette}.")
        if len(set(self.classes)) < len(self.classes):
            raise SpecError(f"{self.name}: every class needs a name of its own, got {', '.join(self.classes)}.")
        if not all(std > 0 for std in self.std):
            raise SpecError(f"{self.name}: std must be positive, got {self.std}.")
        if not len(self.classes) <= self.ignore_label <= IGNORE:
            raise SpecError(
                f"{self.name}: ignore_label must lie between the {len(self.classes)} classes and {IGNORE}, "
                f"got {self.ignore_label}."
            )

    @property
    def size(self) -> Size:
        """Rows and columns of a frame."""
        return self.height, self.width

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The classes that a metric counts: all but a last one called "unlabelled"."""
        return self.classes[:-1] if self.classes[-1] == UNLABELLED else self.classes

    @property
    def label_set(self) -> LabelSet:
        """Names and colours for painting and reporting."""
        for known in (CITYSCAPES, CAMVID):
            if self.evaluated == known.classes and self.palette in ((), known.palette):
                return known
        return LabelSet(self.name, self.classes, self.palette or spread_hues(len(self.classes)), self.ignore_label)

    def resized(self, size: Size) -> ModelSpec:
        """The same contract at another input size."""
        return dataclasses.replace(self, height=size[0], width=size[1])

    def check_frames(self, frames: npt.NDArray[np.uint8]) -> None:
        """Raise SpecError unless `frames` is `(N, height, width, 3)` uint8."""
        expected = (self.height, self.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise SpecError(
                f"{self.name} takes frames of shape (N, {self.height}, {self.width}, 3) and type uint8 "
                f"(rows, columns, RGB), got {frames.shape} {frames.dtype}. Resize them before calling, "
                "or export the model at that size."
            )

    def to_json(self) -> str:
        """One line of JSON, keys in the order of the fields."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> ModelSpec:
        """Read what `to_json` wrote.

        Raises:
            SpecError: naming the field that is missing or of another type.
        """
        try:
            return msgspec.json.decode(text, type=ModelSpec)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SpecError(f"not a ModelSpec: {error}") from error


def parse_size(text: str) -> Size:
    """Rows and columns from text.

    Raises:
        UsageError: if it is anything but two positive numbers with an x between.

    >>> parse_size("360x480")
    (360, 480)
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise UsageError(f"a size is rows x columns, e.g. 360x480, got {text!r}.")
    return int(match[1]), int(match[2])


def spread_hues(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` distinct RGB colours, equally far apart on the colour circle."""
    import colorsys

    return tuple(
        (round(255 * r), round(255 * g), round(255 * b))
        for r, g, b in (colorsys.hsv_to_rgb(i / count, 0.75, 0.9) for i in range(count))
    )
