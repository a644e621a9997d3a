"""Accuracy of label maps against labels."""

from __future__ import annotations

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
        hits = np.diagonal(self.counts).astype(np.float64)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hits
        iou = np.full(self.classes, np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        return iou

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occurred; NaN if none did."""
        iou = self.iou[~np.isnan(self.iou)]
        return float(iou.mean()) if iou.size else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels answered correctly; NaN if there are none."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts[:, :-1]) / total) if total else float("nan")
