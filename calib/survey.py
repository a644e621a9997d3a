"""What there is to see in calibration images, before anything is calibrated on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from roadseg.runtime import CalibrationError, Dataset, track

from .choose import Image, describe
from .copies import find_copies, name_copies, thumbnail

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B, of ITU-R BT.601."""
NIGHT = 0.17
"""Mean luma, of 1, below which a frame is taken for one at night. CamVid's darkest frame at dusk has 0.18; of 19
generated nights about every third one is darker."""
DAY = 0.23
"""The same, above which one is taken for daylight. The darkest of eight frames of Cityscapes' Aachen has 0.23."""
COPIES_SHARE = 0.05
"""Of the images that may be copies of others; beyond it they are refused."""


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What the images show."""

    brightness: tuple[float, ...]
    """Mean luma of an image, 0 to 1: the least, the three quartiles, the largest."""
    classes: dict[str, float] | None
    """Share of the labelled pixels; None where the data set has no labels."""
    warnings: tuple[str, ...]
    """What is missing, a sentence each."""


def survey(dataset: Dataset, chosen: Sequence[int]) -> tuple[tuple[Image, ...], Coverage]:
    """Look at the chosen images of a data set, one by one.

    Raises:
        CalibrationError: if more than `COPIES_SHARE` of them are copies of others, as pixels or to the eye.
        DataError: if one cannot be read.
    """
    images, thumbnails, brightness = [], [], []
    pixels = np.zeros(256, np.int64)
    labelled = False
    for index in track(chosen, "look at images"):
        sample = dataset[index]
        images.append(describe(sample.key, sample.frame))
        thumbnails.append(thumbnail(sample.frame))
        brightness.append(mean_luma(sample.frame))
        if sample.labels is not None:
            labelled = True
            pixels += np.bincount(sample.labels.ravel(), minlength=256)
    copies = find_copies(images, thumbnails)
    if len(copies) > COPIES_SHARE * len(images):
        raise CalibrationError(
            f"{dataset.name}: {len(copies)} of {len(images)} calibration images are copies of others, and would "
            f"count twice: {name_copies(copies)}. Remove them from the data set."
        )
    shares = class_shares(pixels, dataset.label_set.classes) if labelled else None
    quartiles = tuple(round(float(value), 4) for value in np.quantile(brightness, (0, 0.25, 0.5, 0.75, 1)))
    return tuple(images), Coverage(quartiles, shares, tuple(find_gaps(quartiles, shares, copies)))


def mean_luma(frame: npt.NDArray[np.uint8]) -> float:
    """How bright a frame is, `(H, W, 3)` uint8 RGB, from 0 to 1.

    >>> mean_luma(np.full((2, 2, 3), 51, np.uint8))
    0.2
    """
    return round(float(frame.mean(axis=(0, 1)) @ LUMA) / 255, 4)


def class_shares(pixels: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """Of the pixels of any class, by class; all 0 where nothing is labelled.

    >>> class_shares(np.array([1, 3, 0]), ("road", "sky"))
    {'road': 0.25, 'sky': 0.75}
    """
    total = max(int(pixels[: len(classes)].sum()), 1)
    return {name: round(int(count) / total, 6) for name, count in zip(classes, pixels, strict=False)}


def find_gaps(
    brightness: Sequence[float], classes: dict[str, float] | None, copies: dict[str, str]
) -> Iterator[str]:
    """What a set of images lacks, in sentences."""
    missing = [name for name, share in (classes or {}).items() if share == 0]
    if missing:
        yield f"No image shows {', '.join(missing)}."
    if brightness[0] > NIGHT:
        yield (
            f"No image is as dark as at night (the darkest has {brightness[0]:.2f} of full brightness); ranges "
            "may not hold there."
        )
    if brightness[-1] < DAY:
        yield (
            f"No image is as bright as by day (the brightest has {brightness[-1]:.2f} of full brightness); ranges "
            "may not hold there."
        )
    if copies:
        yield f"Copies count twice: {name_copies(copies)}."
