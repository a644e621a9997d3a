"""Which frames of a data set a model is calibrated on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from roadseg.runtime import CalibrationError, Dataset, Key, UsageError, sha256_bytes

HELD_BACK = ("val", "validation", "test")
"""Splits that accuracy is measured on; ranges fitted to them would flatter the result."""


@dataclasses.dataclass(frozen=True)
class Image:
    """One calibration image, known by its pixels."""

    name: str
    group: str
    """Sequence or city, see `runtime.Key`."""
    sha256: str
    """Of shape and pixels as decoded."""


@dataclasses.dataclass(frozen=True)
class ImageList:
    """What ranges were collected on."""

    dataset: str
    """Kind and folder name, without the path that leads to it."""
    split: str
    seed: int
    images: tuple[Image, ...]
    """In the order of the data set."""

    @property
    def sha256(self) -> str:
        """Of names, groups and pixels of all images."""
        return sha256_bytes(msgspec.json.encode(self.images))


def choose(dataset: Dataset, count: int, seed: int, force: bool = False) -> tuple[int, ...]:
    """Indices of `count` different images, in rising order; of all there are if there are not so many.

    Every group (city, sequence) gives images in proportion to its size, and at least one where `count` allows.
    Within a group the choice depends on nothing but the seed and the names, so it survives a data set that is
    listed in another order.

    Raises:
        CalibrationError: if the split is held back for measuring and `force` is not given, or is empty.
        UsageError: if `count` is not positive.
    """
    if count < 1:
        raise UsageError(f"calibration needs at least one image, got a count of {count}.")
    if dataset.split in HELD_BACK and not force:
        raise CalibrationError(
            f'{dataset.name}: the split "{dataset.split}" is there to measure accuracy; calibrating on it would '
            'flatter the INT8 model. Take the split "train", or force it.'
        )
    if not len(dataset):
        raise CalibrationError(f'{dataset.name}: the split "{dataset.split}" holds no images to calibrate on.')
    # Groups in the order of their best rank: where there are more groups than images, the seed decides.
    groups: dict[str, list[int]] = defaultdict(list)
    ranks = [rank(seed, key) for key in dataset.keys]
    for index in sorted(range(len(ranks)), key=ranks.__getitem__):
        groups[dataset.keys[index].group].append(index)
    members = list(groups.values())
    shares = proportional([len(group) for group in members], count)
    return tuple(sorted(i for group, share in zip(members, shares, strict=True) for i in group[:share]))


def proportional(sizes: Sequence[int], count: int) -> list[int]:
    """Divide `count` among groups: one each while it lasts, then each to the one furthest below its exact share.

    >>> proportional([10, 30, 1], 8)
    [2, 5, 1]
    """
    count = min(count, sum(sizes))
    shares = [int(position < count) for position in range(len(sizes))]
    while sum(shares) < count:
        shortage = [size * count / sum(sizes) - share for size, share in zip(sizes, shares, strict=True)]
        open_groups = [i for i, size in enumerate(sizes) if shares[i] < size]
        shares[max(open_groups, key=shortage.__getitem__)] += 1
    return shares


def describe(key: Key, frame: npt.NDArray[np.uint8]) -> Image:
    """What is recorded of an image `(H, W, 3)` uint8."""
    digest = hashlib.sha256(repr(frame.shape).encode())
    digest.update(np.ascontiguousarray(frame).data)
    return Image(key.name, key.group, digest.hexdigest())


def rank(seed: int, key: Key) -> bytes:
    """Where an image stands among others, by nothing but seed and name."""
    return hashlib.sha256(f"{seed}/{key.group}/{key.name}".encode()).digest()
