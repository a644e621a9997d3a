"""Whether INT8 is worth it: a float model and its typed ones side by side, and one sentence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from roadseg.runtime import ParityReport, Sample, Segmenter, compare
from roadseg.runtime.onnxfile import load_onnx

from .cost import estimate_ms
from .gpus import Gpu
from .lint import lint_model
from .trial import remembering

WORTHWHILE = 0.1
"""Share of the time of FP16 that a model has to save to be worth its loss; the estimate errs by more than less."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One model in the comparison."""

    precision: str
    """"FP32", "FP16", "INT8", or "mixed" for INT8 with layers left float."""
    miou: float | None
    """Percent; None without labels."""
    drop: float
    """Percentage points of mIoU below the FP32 model; without labels, of agreement with it."""
    ci95: tuple[float, float]
    """Of the drop: 95 % bootstrap interval over frames; NaN without labels."""
    worst_class: str
    """The one whose IoU falls most; empty where none falls, and without labels."""
    worst_class_drop: float
    """Percentage points of its IoU."""
    furthest: str
    """The frame whose answers agree least with the FP32 model's."""
    furthest_agreement: float
    """On which share of its pixels, in percent; much less than on most frames tells that the ranges are not made
    for frames like this."""
    int8_mac_share: float
    """Of the layers' multiply-accumulate operations, those in INT8; in [0, 1]."""
    estimated_ms: float
    """For one frame, see `cost`."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came out."""

    frames: int
    gpu: str
    """What `estimated_ms` is for."""
    budget: float
    """Percentage points that may be lost."""
    candidates: tuple[Candidate, ...]
    """FP32 first."""
    sentence: str


def judge(models: Mapping[str, Path], samples: Sequence[Sample], *, gpu: Gpu, budget: float) -> Verdict:
    """Measure typed models against the float one on the same frames.

    Args:
        models: ONNX file by precision; "FP32" first, then "FP16", and what is to be judged last.
        samples: frames, all with labels or none.
        gpu: to estimate the time for.
        budget: percentage points that may be lost.

    Raises:
        ArtifactError: if a file cannot be read.
        DataError: if there are no frames, or only some have labels.
    """
    (name, reference), *others = models.items()
    opened = remembering(reference)
    candidates = [
        candidate(other, path, compare(opened, Segmenter.open(path), samples), gpu) for other, path in others
    ]
    same = compare(opened, opened, samples)
    whole = (candidate(name, reference, same, gpu), *candidates)
    return Verdict(len(samples), gpu.name, budget, whole, sentence(whole, gpu, budget))


def candidate(precision: str, path: Path, parity: ParityReport, gpu: Gpu) -> Candidate:
    """What was found of one model."""
    worst, lost = worst_class(parity)
    low, high = (100 * end for end in parity.ci95)
    return Candidate(
        precision=precision,
        miou=100 * parity.candidate.miou if parity.labelled else None,
        drop=round(100 * parity.drop, 6),
        ci95=(low, high),
        worst_class=worst,
        worst_class_drop=lost,
        furthest=parity.furthest,
        furthest_agreement=100 * parity.furthest_agreement,
        int8_mac_share=lint_model(load_onnx(path)).mac_share,
        estimated_ms=round(estimate_ms(path, gpu), 4),
    )


def worst_class(parity: ParityReport) -> tuple[str, float]:
    """The class whose IoU falls most, and by how many points; no class and 0 where none falls."""
    ious = zip(parity.reference.classes, parity.reference.iou, parity.candidate.iou, strict=True)
    drops = {name: 100 * (before - after) for name, before, after in ious if not math.isnan(before - after)}
    worst = max(drops, key=drops.__getitem__, default="")
    return (worst, drops[worst]) if worst and drops[worst] > 0 else ("", 0.0)


def sentence(candidates: Sequence[Candidate], gpu: Gpu, budget: float) -> str:
    """What to do, in a sentence; FP16 is the second of `candidates`, and the last is on trial."""
    half, tried = candidates[1], candidates[-1]
    saved = 1 - tried.estimated_ms / half.estimated_ms
    instead = f"take FP16, which loses {half.drop:.2f}" if half.drop <= budget else "stay with FP32"
    faster = f"{abs(100 * saved):.0f} % {'faster' if saved >= 0 else 'slower'} than FP16 by estimate"
    if tried.drop > budget:
        return (
            f"INT8 loses {tried.drop:.2f} points, more than the budget of {budget:g}, with "
            f"{100 * tried.int8_mac_share:.1f} % of the operations in INT8: {instead}."
        )
    if saved < WORTHWHILE:
        return f"INT8 is not worth it on {gpu.name}: {faster}, {-tried.drop:+.2f} points; {instead}."
    low, high = tried.ci95
    interval = "" if math.isnan(low) else f" (95 %: {-high:+.2f} to {-low:+.2f})"
    return (
        f"Take the {tried.precision} model: {faster} on {gpu.name}, {-tried.drop:+.2f} points{interval} "
        f"within a budget of {budget:g}."
    )
