"""One page that shows what a pipeline made: accuracy, pictures, latency, engines, and how to repeat it.

The page is a single HTML file that loads nothing: pictures, the video and the style are inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roadseg.calib import Point, frontier, worst_parts
from roadseg.runtime import Latency, ModelSpec, require, write_atomically

from .embed import DIFFERENT, embed_differences, embed_frame, embed_labels, embed_video

MINUS = "\u2212"
DASH = "\u2013"
MAX_DOTS = 200
"""Latency samples drawn per model; of more, as many evenly spaced percentiles."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One model of the pipeline, measured against labels and against the reference."""

    name: str
    """What readers call it, e.g. "ONNX INT8"."""
    miou: float | None
    """In percent; None without labels."""
    per_class_iou: dict[str, float | None]
    """In percent; None for a class that never occurred."""
    pixel_agreement: float | None = None
    """Percent of pixels answered as by the reference; None for the reference itself, as all that follows."""
    miou_drop: float | None = None
    """Percentage points lost to the reference."""
    ci95: tuple[float, float] | None = None
    """95 % interval of `miou_drop`."""
    budget: float | None = None
    """Percentage points it may lose."""
    within_budget: bool | None = None


@dataclasses.dataclass(frozen=True)
class EngineRow:
    """One engine that was built."""

    file: str
    flavour: str
    """"tensorrt" or "rtx"."""
    version: str
    """Of the TensorRT that built it."""
    compute_capability: str
    """Of the GPU it is for, e.g. "8.6"."""
    precision: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class LatencyRow:
    """How long one model took from frame to labels."""

    name: str
    samples_ms: tuple[float, ...]
    """At least one."""
    conditions: dict[str, str]
    """What the samples are true of."""

    def percentile_ms(self, share: float) -> float:
        """The latency that `share` percent of the samples do not exceed, interpolated."""
        return Latency(self.samples_ms, self.conditions).percentile_ms(share)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One frame and what every model saw in it."""

    title: str
    frame: npt.NDArray[np.uint8]
    """`(H, W, 3)` RGB."""
    truth: npt.NDArray[np.uint8] | None
    """`(H, W)` train ids."""
    answers: dict[str, npt.NDArray[np.uint8]]
    """`(H, W)` train ids by stage name, the reference first."""


@dataclasses.dataclass(frozen=True)
class Search:
    """How the INT8 model was found."""

    frames: int
    """That its layers were chosen on."""
    budget: float
    """Percentage points it may lose on them."""
    gpu: str
    """What times are estimated for."""
    points: tuple[Point, ...]
    """All models that were measured, at least one."""
    chosen: Point
    """The one that was taken."""
    parts: dict[str, float]
    """Percentage points that parts of the network lose alone in INT8; empty where nobody asked."""


@dataclasses.dataclass(frozen=True)
class ReportData:
    """All that the page shows."""

    title: str
    spec: ModelSpec
    provenance: dict[str, str]
    """Where the model comes from: fact by name."""
    data: str
    """What was measured on, in words."""
    stages: tuple[Stage, ...]
    """At least one; the first is the reference."""
    engines: tuple[EngineRow, ...] = ()
    latencies: tuple[LatencyRow, ...] = ()
    pictures: tuple[Picture, ...] = ()
    video: Path | None = None
    """H.264 in MP4; larger than embed.MAX_VIDEO_BYTES it is linked and has to stay beside the page."""
    video_report: dict[str, float] | None = None
    """Fields of runtime.video.RunReport."""
    commands: tuple[str, ...] = ()
    """How to repeat it."""
    search: Search | None = None
    """None where INT8 is what its ranges made it."""


def write_report(data: ReportData, out: Path) -> None:
    """Write the page.

    Raises:
        MissingDependencyError: without the extra "report".
        ArtifactError: if the video cannot be read or `out` cannot be written.
    """
    write_atomically(out, render(data).encode())


def render(data: ReportData) -> str:
    """The page as text, the same for the same data.

    Raises:
        MissingDependencyError: without the extra "report".
        ArtifactError: if the video cannot be read.
    """
    jinja2 = require("jinja2", "writing a report page")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("roadseg"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "agreement": agreement,
        "megabytes": megabytes,
        "colour": colour,
    }
    html: str = environment.get_template("report.html.j2").render(page(data))
    return html


def page(data: ReportData) -> dict[str, Any]:
    """What the template fills in, by name."""
    reference, *candidates = data.stages
    return {
        "report": data,
        "reference": reference,
        "candidates": candidates,
        "verdicts": [judge(stage, reference) for stage in candidates],
        "class_rows": class_rows(data.spec, reference, candidates),
        "trade": trade(data.search) if data.search else None,
        "views": [view(picture, data.spec) for picture in data.pictures],
        "latency_scale": Scale.over(sample for row in data.latencies for sample in row.samples_ms),
        "shared_conditions": shared_conditions(data.latencies),
        "dots": dots,
        "video": embed_video(data.video) if data.video else None,
        "different": DIFFERENT,
    }


@dataclasses.dataclass(frozen=True)
class Scale:
    """A line from `low` at its left edge to `high` at its right."""

    low: float
    high: float

    @staticmethod
    def over(values: Iterable[float]) -> Scale:
        """From the lowest value, or zero if that is lower, to a little beyond the highest."""
        known = [0.0, *values]
        low, high = min(known), max(known)
        margin = 0.06 * (high - low or 1)
        return Scale(low - margin if low < 0 else 0.0, high + margin)

    def at(self, value: float) -> str:
        """Where `value` lies, as a CSS length."""
        return self.between(self.low, value)

    @staticmethod
    def around(values: Iterable[float]) -> Scale:
        """From a little below the lowest value to a little beyond the highest."""
        known = list(values)
        low, high = min(known), max(known)
        margin = 0.06 * (high - low or 1)
        return Scale(low - margin, high + margin)

    def from_top(self, value: float) -> str:
        """Where `value` lies if the scale stands upright, as a CSS length."""
        return self.between(value, self.high)

    def between(self, first: float, second: float) -> str:
        """How far apart two values lie, as a CSS length."""
        return f"{100 * (second - first) / (self.high - self.low):.2f}%"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What there is to say about one candidate."""

    stage: Stage
    sentence: str
    word: str
    """"passed", "failed" or "not judged"."""
    worst: tuple[str, float] | None
    """The class that lost most, and its change in percentage points."""
    scale: Scale
    """For the loss, its interval and the budget."""


def judge(stage: Stage, reference: Stage) -> Verdict:
    """Put the parity of one candidate into words."""
    judged = stage.within_budget is not None and stage.budget is not None
    word = ("passed" if stage.within_budget else "failed") if judged else "not judged"
    worst = worst_class(stage, reference)
    values = (stage.miou_drop, stage.budget, *(stage.ci95 or ()))
    return Verdict(
        stage,
        f"{stage.name} {_tell_result(stage, reference)}: {_tell_budget(stage, word)}.",
        word,
        (worst, changes(stage, reference)[worst]) if worst else None,
        Scale.over(value for value in values if value is not None),
    )


def changes(stage: Stage, reference: Stage) -> dict[str, float]:
    """Percentage points of IoU won (or lost, below zero) by class, where both have one."""
    pairs = ((name, iou, stage.per_class_iou.get(name)) for name, iou in reference.per_class_iou.items())
    return {name: after - before for name, before, after in pairs if before is not None and after is not None}


def worst_class(stage: Stage, reference: Stage) -> str | None:
    """The class that lost most; None if none lost anything."""
    losses = {name: change for name, change in changes(stage, reference).items() if change < 0}
    return min(losses, key=losses.__getitem__, default=None)


@dataclasses.dataclass(frozen=True)
class Trade:
    """What INT8 loses against the time it takes."""

    search: Search
    frontier: tuple[Point, ...]
    """The points that no other beats, the fastest first."""
    shown: tuple[Point, ...]
    """These, and the one that was taken."""
    times: Scale
    losses: Scale
    worst: dict[str, float]
    """The parts of the network that lose most, the worst first."""


def trade(search: Search) -> Trade:
    """Choose what to show of a search."""
    best = tuple(frontier(search.points))
    return Trade(
        search,
        best,
        tuple(sorted({*best, search.chosen}, key=lambda point: (point.estimated_ms, point.kept))),
        Scale.around(point.estimated_ms for point in search.points),
        Scale.over([search.budget, *(point.drop for point in search.points)]),
        worst_parts(search.parts),
    )


@dataclasses.dataclass(frozen=True)
class ClassCell:
    """One candidate's IoU of one class."""

    iou: float | None
    """In percent."""
    change: float | None
    """Against the reference, in percentage points."""
    worst: bool
    """Whether no class lost more."""


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class in every model."""

    name: str
    colour: tuple[int, int, int]
    reference: float | None
    """The reference's IoU, in percent."""
    cells: tuple[ClassCell, ...]
    """By candidate."""


def class_rows(spec: ModelSpec, reference: Stage, candidates: Sequence[Stage]) -> list[ClassRow]:
    """The table of IoU per class, in the order of the train ids."""
    columns = [(stage, changes(stage, reference), worst_class(stage, reference)) for stage in candidates]
    return [
        ClassRow(
            name,
            rgb,
            reference.per_class_iou.get(name),
            tuple(
                ClassCell(stage.per_class_iou.get(name), change.get(name), name == worst)
                for stage, change, worst in columns
            ),
        )
        for name, rgb in zip(spec.classes, spec.label_set.palette, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Answer:
    """One candidate's labels of a picture."""

    name: str
    labels: str
    """Data URI."""
    differences: str
    """Data URI."""
    differing: int
    """Pixels answered otherwise than by the reference."""


@dataclasses.dataclass(frozen=True)
class View:
    """A picture, ready for the page."""

    title: str
    height: int
    """In pixels, of the camera frame."""
    width: int
    frame: str
    """Data URI."""
    truth: str | None
    """Data URI of the labels."""
    reference: str
    """What the first model is called."""
    reference_labels: str
    """Data URI."""
    answers: tuple[Answer, ...]


def view(picture: Picture, spec: ModelSpec) -> View:
    """Encode what a picture is made of; the page lays the parts over one another."""
    colours = spec.label_set
    (name, reference), *others = picture.answers.items()
    height, width = picture.frame.shape[:2]
    return View(
        picture.title,
        height,
        width,
        embed_frame(picture.frame),
        None if picture.truth is None else embed_labels(picture.truth, colours),
        name,
        embed_labels(reference, colours),
        tuple(
            Answer(
                other,
                embed_labels(labels, colours),
                embed_differences(reference, labels),
                int(np.count_nonzero(reference != labels)),
            )
            for other, labels in others
        ),
    )


def shared_conditions(rows: Sequence[LatencyRow]) -> dict[str, str]:
    """Conditions under which all of the models were timed."""
    if not rows:
        return {}
    first, *others = (row.conditions for row in rows)
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def dots(row: LatencyRow) -> list[float]:
    """The samples to draw, in milliseconds, sorted."""
    if len(row.samples_ms) <= MAX_DOTS:
        return sorted(row.samples_ms)
    return [float(value) for value in np.percentile(row.samples_ms, np.linspace(0, 100, MAX_DOTS))]


def number(value: float | None, digits: int = 2) -> str:
    """A figure with a fixed number of decimals; a dash where there is none.

    >>> number(61.6), number(None)
    ('61.60', '–')
    """
    if value is None:
        return DASH
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """A change, with its sign unless it rounds to nothing.

    >>> signed(0.5), signed(0.001), signed(None)
    ('+0.50', '0.00', '–')
    """
    text = number(value, digits)
    return f"+{text}" if value is not None and round(value, digits) > 0 else text


def agreement(percent: float | None) -> str:
    """A share that only reads 100 if nothing is missing.

    >>> agreement(99.99), agreement(99.99999), agreement(100)
    ('99.990 %', '> 99.999 %', '100.000 %')
    """
    if percent is None:
        return DASH
    return "> 99.999 %" if 99.9995 <= percent < 100 else f"{percent:.3f} %"


def megabytes(size: int) -> str:
    """A file size, in millions of bytes.

    >>> megabytes(4_234_567)
    '4.23 MB'
    """
    return f"{size / 1e6:.2f} MB"


def colour(rgb: tuple[int, int, int]) -> str:
    """A colour as CSS.

    >>> colour((128, 64, 128))
    '#804080'
    """
    return "#" + bytes(rgb).hex()


def _tell_result(stage: Stage, reference: Stage) -> str:
    if stage.miou_drop is None:
        return f"was not compared with {reference.name}"
    if stage.miou is None or reference.miou is None:
        return f"comes within {number(stage.miou_drop, 3)} mIoU of the answers of {reference.name}"
    if stage.miou_drop <= 0:
        return f"keeps all {reference.miou:.2f} mIoU"
    return f"keeps {stage.miou:.2f} of {reference.miou:.2f} mIoU"


def _tell_budget(stage: Stage, word: str) -> str:
    return {
        "passed": f"within its budget of {stage.budget}",
        "failed": f"failed, beyond its budget of {stage.budget}",
        "not judged": "no budget was set",
    }[word]
