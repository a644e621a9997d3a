"""How good a model is, and whether a candidate is as good as its reference.

The same frames go through both. With labels, the verdict is the mIoU that the candidate loses; without, it is how
well the candidate agrees with the reference. One engine that answers a single class is caught either way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .data import Dataset, Sample, refuse_other_classes
from .errors import DataError, ParityError, SpecError
from .labels import IGNORE
from .metrics import ConfusionMatrix, iou_of, mean_over_classes
from .progress import track
from .segmenter import Segmenter
from .spec import ModelSpec

Labels = npt.NDArray[np.uint8]

RESAMPLES = 1000
"""Of the frames, for the confidence interval."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One model against labels."""

    backend: str
    classes: tuple[str, ...]
    miou: float
    """In [0, 1]; NaN without labels."""
    iou: tuple[float, ...]
    """Per class, in [0, 1]; NaN for a class that never occurred."""
    pixel_accuracy: float
    """In [0, 1]."""
    frames: int

    def as_json(self) -> dict[str, Any]:
        """What `roadseg evaluate --json` prints: percentages, null where there is no number."""
        return {
            "miou": percent(self.miou),
            "per_class_iou": {name: percent(value) for name, value in zip(self.classes, self.iou, strict=True)},
            "pixel_accuracy": percent(self.pixel_accuracy),
            "frames": self.frames,
            "backend": self.backend,
        }


def evaluate(segmenter: Segmenter, samples: Dataset | Iterable[Sample]) -> Evaluation:
    """Measure a model on labelled frames; frames of another size are resized, their labels are not.

    Raises:
        DataError: if there are no frames, one has no labels or labels of another size, or a data set's classes are
            not the model's.
        SpecError: if a label is not one of the model's classes.
    """
    refuse_other_classes(samples, segmenter.spec)
    matrix = _matrix(segmenter)
    frames = 0
    for sample in track(samples, f"evaluate {segmenter.backend.name}"):
        if sample.labels is None:
            raise DataError(f"{sample.key.name} has no labels, so it cannot be evaluated on.")
        matrix.update(_checked_labels(sample), _counted(segmenter.segment_fitted(sample.frame), segmenter.spec))
        frames += 1
    if not frames:
        raise DataError("there are no frames to evaluate on.")
    return _evaluation(segmenter, matrix, frames)


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """A candidate beside its reference, on the same frames."""

    reference: Evaluation
    candidate: Evaluation
    pixel_agreement: float
    """Share of all pixels on which both give the same answer, in [0, 1]."""
    agreement_miou: float
    """mIoU of the candidate when the reference's answers are taken for labels, in [0, 1]."""
    ci95: tuple[float, float]
    """Of the drop in mIoU, 95 % bootstrap interval over frames, in [-1, 1]."""
    reference_histogram: tuple[float, ...]
    """Share of pixels that the reference gives to each class."""
    candidate_histogram: tuple[float, ...]
    furthest: str
    """The frame on whose pixels they agree least: its name, or "frame 7" where it has none, counted from 0."""
    furthest_agreement: float
    """Share of that frame's pixels on which both give the same answer, in [0, 1]."""

    @property
    def labelled(self) -> bool:
        """Whether the frames had labels; without them the verdict is about agreement."""
        return not math.isnan(self.reference.miou)

    @property
    def drop(self) -> float:
        """What the candidate loses, in [-1, 1]: mIoU against labels, or short of full agreement without any."""
        return self.reference.miou - self.candidate.miou if self.labelled else 1 - self.agreement_miou

    def within(self, budget: float) -> bool:
        """Whether the drop is at most `budget`, in percentage points; a NaN never is."""
        # Rounded so that a drop printed as 0.10 is within a budget of 0.10.
        return round(100 * self.drop, 6) <= budget

    def raise_for_parity(self, budget: float = 0.1) -> None:
        """Raise ParityError unless the candidate is within `budget`, in percentage points of mIoU."""
        if self.within(budget):
            return
        allowed = f"the budget is {budget:g} points."
        if self.labelled:
            sentence = (
                f"the candidate ({self.candidate.backend}) has {100 * self.candidate.miou:.2f} % mIoU, "
                f"{100 * self.drop:.3g} points below the reference ({self.reference.backend}) with "
                f"{100 * self.reference.miou:.2f} %; {allowed}"
            )
        else:
            sentence = (
                f"the candidate ({self.candidate.backend}) agrees with the reference ({self.reference.backend}) "
                f"to {100 * self.agreement_miou:.2f} % mIoU, {100 * self.drop:.3g} points short of all; {allowed}"
            )
        raise ParityError(" ".join([sentence, *self._suspicion()]))

    def as_json(self, budget: float) -> dict[str, Any]:
        """What `roadseg parity --json` prints: percentages, null where there is no number."""
        return {
            "miou_reference": percent(self.reference.miou),
            "miou_candidate": percent(self.candidate.miou),
            "miou_drop": percent(self.drop),
            "pixel_agreement": percent(self.pixel_agreement),
            "furthest": {"frame": self.furthest, "pixel_agreement": percent(self.furthest_agreement)},
            "agreement_miou": percent(self.agreement_miou),
            "ci95": [percent(bound) for bound in self.ci95],
            "budget": budget,
            "within_budget": self.within(budget),
            "frames": self.candidate.frames,
            "labelled": self.labelled,
            "reference": self.reference.as_json(),
            "candidate": self.candidate.as_json(),
            "class_histogram_reference": self._by_class(self.reference_histogram),
            "class_histogram_candidate": self._by_class(self.candidate_histogram),
        }

    def _by_class(self, shares: tuple[float, ...]) -> dict[str, float | None]:
        return {name: percent(share) for name, share in zip(self.candidate.classes, shares, strict=True)}

    def _suspicion(self) -> list[str]:
        top = int(np.argmax(self.candidate_histogram))
        if self.candidate_histogram[top] < 1 or self.reference_histogram[top] == 1:
            return []
        return [f"It answers {self.candidate.classes[top]!r} for every pixel."]


def compare(
    reference: Segmenter, candidate: Segmenter, frames: Dataset | Iterable[Sample | Labels], seed: int = 0
) -> ParityReport:
    """Send the same frames through both.

    Args:
        reference: usually the PyTorch network.
        candidate: what is to take its place; of the same classes and input size.
        frames: samples, or plain frames `(h, w, 3)` uint8 RGB without labels; either all have labels or none.
        seed: of the bootstrap.

    Raises:
        SpecError: if the two cannot be compared.
        DataError: if there are no frames, only some have labels, or a data set's classes are not the models'.
    """
    _check_comparable(reference, candidate)
    refuse_other_classes(frames, candidate.spec)
    tally = _Tally(reference, candidate)
    for frame in track(frames, f"compare with {candidate.backend.name}"):
        tally.add(frame)
    return tally.report(seed)


class _Tally:
    """What is counted per frame, from which everything in the report follows."""

    def __init__(self, reference: Segmenter, candidate: Segmenter) -> None:
        self.segmenters = (reference, candidate)
        self.counts: tuple[list[npt.NDArray[np.int64]], ...] = ([], [])
        """Per model: the confusion matrix of each frame."""
        self.agreement = ConfusionMatrix(len(reference.spec.classes), reference.spec.ignore_label)
        self.pixels = self.same = 0
        self.labelled: bool | None = None
        self.agreements: list[tuple[float, str]] = []
        """Of each frame the share of pixels on which both agree, and its name."""

    def add(self, item: Sample | Labels) -> None:
        frame = item.frame if isinstance(item, Sample) else item
        labels = _checked_labels(item) if isinstance(item, Sample) and item.labels is not None else None
        if self.labelled not in (None, labels is not None):
            raise DataError("some frames have labels and some have none; compare on one kind at a time.")
        self.labelled = labels is not None
        first, second = (segmenter.segment_fitted(frame) for segmenter in self.segmenters)
        same = int(np.count_nonzero(first == second))
        self.pixels += first.size
        self.same += same
        name = item.key.name if isinstance(item, Sample) else f"frame {len(self.agreements)}"
        self.agreements.append((same / first.size, name))
        self.agreement.update(first, second)
        for segmenter, answers, counts in zip(self.segmenters, (first, second), self.counts, strict=True):
            matrix = _matrix(segmenter)
            if labels is not None:
                matrix.update(labels, _counted(answers, segmenter.spec))
            counts.append(matrix.counts)

    def report(self, seed: int) -> ParityReport:
        if not self.agreements:
            raise DataError("there are no frames to compare on.")
        reference, candidate = (
            _evaluation(segmenter, _matrix(segmenter, np.sum(counts, axis=0)), len(self.agreements))
            for segmenter, counts in zip(self.segmenters, self.counts, strict=True)
        )
        answers = self.agreement.counts
        total = max(1, int(answers.sum()))
        least, furthest = min(self.agreements, key=lambda agreement: agreement[0])
        return ParityReport(
            reference,
            candidate,
            pixel_agreement=self.same / self.pixels,
            agreement_miou=self.agreement.miou,
            ci95=bootstrap_drop(np.stack(self.counts[0]), np.stack(self.counts[1]), seed),
            # Counts are summed before they are divided, so that a class with every pixel has a share of exactly 1.
            reference_histogram=tuple((answers.sum(axis=1) / total).tolist()),
            candidate_histogram=tuple((answers[:, :-1].sum(axis=0) / total).tolist()),
            furthest=furthest,
            furthest_agreement=least,
        )


def bootstrap_drop(
    reference: npt.NDArray[np.int64], candidate: npt.NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """95 % interval of the drop in mIoU when the frames are drawn anew, with replacement.

    Args:
        reference: `(frames, classes, classes + 1)` confusion counts of each frame.
        candidate: likewise.
        seed: of the draws.
    """
    frames = len(reference)
    draws = np.random.default_rng(seed).multinomial(frames, np.full(frames, 1 / frames), size=RESAMPLES)
    drops = mean_iou(draws, reference) - mean_iou(draws, candidate)
    if np.isnan(drops).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(drops, (2.5, 97.5))
    return float(low), float(high)


def mean_iou(draws: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean IoU of each draw: `(draws, frames)` multiplicities and `(frames, C, C + 1)` counts give `(draws,)`."""
    flat = draws.astype(np.float64) @ counts.reshape(len(counts), -1)
    return mean_over_classes(iou_of(flat.reshape(len(draws), *counts.shape[1:])))


def percent(share: float) -> float | None:
    """A share as a percentage; None for NaN, which JSON has no word for.

    >>> percent(0.5), percent(float("nan"))
    (50.0, None)
    """
    return None if math.isnan(share) else 100 * share


def _matrix(segmenter: Segmenter, counts: npt.NDArray[np.int64] | None = None) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(segmenter.spec.classes))
    if counts is not None:
        matrix.counts = counts
    return matrix


def _counted(answers: Labels, spec: ModelSpec) -> Labels:
    """The answers as a metric counts them: "unlabelled" is none of the classes, so it misses whatever is there."""
    return np.where(answers < len(spec.evaluated), answers, IGNORE).astype(np.uint8)


def _evaluation(segmenter: Segmenter, matrix: ConfusionMatrix, frames: int) -> Evaluation:
    return Evaluation(
        segmenter.backend.name,
        segmenter.spec.classes,
        matrix.miou,
        tuple(matrix.iou.tolist()),
        matrix.pixel_accuracy,
        frames,
    )


def _checked_labels(sample: Sample) -> Labels:
    if sample.labels is None or sample.labels.shape != sample.frame.shape[:2]:
        shape = None if sample.labels is None else sample.labels.shape
        raise DataError(f"{sample.key.name} has labels of {shape} for a frame of {sample.frame.shape[:2]}.")
    return sample.labels


def _check_comparable(reference: Segmenter, candidate: Segmenter) -> None:
    first, second = reference.spec, candidate.spec
    if first.classes != second.classes:
        raise SpecError(
            f"the reference has {len(first.classes)} classes ({', '.join(first.classes[:3])}, ...), the candidate "
            f"{len(second.classes)} ({', '.join(second.classes[:3])}, ...); they cannot be compared."
        )
    if first.size != second.size:
        raise SpecError(
            f"the reference takes {first.height}x{first.width}, the candidate {second.height}x{second.width}; "
            "compare them at one size."
        )
