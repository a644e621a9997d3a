"""Accuracy of label maps against labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import SpecError
from .labels import IGNORE


class ConfusionMatrix:
    """Counts of (label, answer) pairs over any number of frames.

    A class that occurs neither in the labels nor in the answers has no IoU (NaN) and is left out of the mean,
    as in the Cityscapes evaluation. An answer outside the classes counts as a miss of its label's class.
    """

    def __init__(self, classes: int, ignore_label: int = IGNORE) -> None:
        self.classes = classes
        self.ignore_label = ignore_label
        self.counts = np.zeros((classes, classes + 1), np.int64)
        """Row: label. Column: answer; the last column holds answers outside the classes."""

    def update(self, labels: npt.NDArray[np.uint8], answers: npt.NDArray[np.uint8]) -> None:
        """Count one pair of equally shaped maps of train ids.

        Raises:
            SpecError: if the shapes differ, or a label is neither a class nor the ignore label.
        """
        if labels.shape != answers.shape:
            raise SpecError(
                f"labels of shape {labels.shape} cannot be compared with answers of shape {answers.shape}."
            )
        counted = labels != self.ignore_label
        truth = labels[counted].astype(np.int64)
        if truth.size and truth.max() >= self.classes:
            raise SpecError(
                f"label {truth.max()} is outside the {self.classes} classes and is not the ignore label "
                f"{self.ignore_label}. Are these train ids of the model's label set?"
            )
        answer = np.minimum(answers[counted], self.classes).astype(np.int64)
        width = self.classes + 1
        self.counts += np.bincount(truth * width + answer, minlength=self.counts.size).reshape(self.counts.shape)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class, in [0, 1]; NaN for a class that never occurred."""
        return iou_of(self.counts)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occurred; NaN if none did."""
        return float(mean_over_classes(self.iou))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels answered correctly; NaN if there are none."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts[:, :-1]) / total) if total else float("nan")


def iou_of(counts: npt.NDArray[np.number[Any]]) -> npt.NDArray[np.float64]:
    """IoU of confusion counts `(..., C, C + 1)`: `(..., C)`, NaN for a class that never occurred."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(axis=-1) + counts[..., :-1].sum(axis=-2) - hits
    return _ratio(hits, union)


def mean_over_classes(iou: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of `(..., C)` over the classes that occurred; NaN where none did."""
    return _ratio(np.nansum(iou, axis=-1), (~np.isnan(iou)).sum(axis=-1))


def _ratio(share: npt.NDArray[np.float64], whole: npt.NDArray[np.number[Any]]) -> npt.NDArray[np.float64]:
    ratio = np.full(np.shape(share), np.nan)
    np.divide(share, whole, out=ratio, where=whole > 0)
    return ratio
