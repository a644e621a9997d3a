"""What a pipeline made, gathered from its folder for the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadseg.calib import Point
from roadseg.runtime import Dataset, Segmenter, read_manifest
from roadseg.runtime.onnxfile import PROVENANCE_KEY, load_onnx, metadata
from roadseg.runtime.plan import PlanDetails

from .report import EngineRow, LatencyRow, Picture, ReportData, Search, Stage
from .steps import read_json

if TYPE_CHECKING:
    from .pipeline import Pipeline, Precision

REFERENCE = "PyTorch FP32"
PICTURES = 3
"""Frames shown, beside those on which a model is furthest from the reference."""
SAME = 99.5
"""Percent of a frame's pixels: where more agree with the reference there is nothing to see."""


def collect(pipeline: Pipeline, plans: list[Path]) -> ReportData:
    """Everything that the report shows of a finished pipeline."""
    verdicts = {precision: read_json(pipeline.verdict(precision)) for precision in pipeline.config.precisions}
    reference = next(iter(verdicts.values()))["reference"]
    kind = pipeline.evaluation.name.partition(":")[0]
    return ReportData(
        title=pipeline.config.title,
        spec=pipeline.reference.spec,
        provenance=provenance(pipeline),
        data=f"{kind} {pipeline.evaluation.split}, {reference['frames']} frames",
        stages=(
            Stage(REFERENCE, reference["miou"], reference["per_class_iou"]),
            *(stage(precision, verdict) for precision, verdict in verdicts.items()),
        ),
        search=search(pipeline.search_file) if pipeline.searched else None,
        engines=tuple(engine_row(plan) for plan in plans),
        latencies=latencies(pipeline.latency_file) if pipeline.config.latency_frames else (),
        pictures=pictures(pipeline, verdicts),
        video=pipeline.video_file if pipeline.config.video else None,
        video_report=read_json(pipeline.video_report_file) if pipeline.config.video else None,
        commands=(f"roadseg pipeline {pipeline.file.name}",),
    )


def stage(precision: str, verdict: dict[str, Any]) -> Stage:
    """One model's row, from what `ParityReport.as_json` says."""
    low, high = verdict["ci95"]
    return Stage(
        f"ONNX {precision.upper()}",
        verdict["miou_candidate"],
        verdict["candidate"]["per_class_iou"],
        verdict["pixel_agreement"],
        verdict["miou_drop"],
        None if low is None or high is None else (low, high),
        verdict["budget"],
        verdict["within_budget"],
    )


def search(path: Path) -> Search:
    """How INT8 was found, from what `SearchReport` says."""
    found = read_json(path)
    points, chosen = tuple(map(point, found["points"])), point(found["chosen"])
    return Search(found["frames"], found["budget"], found["verdict"]["gpu"], points, chosen, found["parts"])


def point(fields: dict[str, Any]) -> Point:
    """A model that a search measured; JSON has no NaN, which stands for no interval."""
    low, high = (math.nan if end is None else end for end in fields["ci95"])
    return Point(**{**fields, "ci95": (low, high)})


def engine_row(plan: Path) -> EngineRow:
    """One engine's row, from its manifest."""
    details = read_manifest(plan, "plan").details_as(PlanDetails)
    capabilities = ", ".join(details.compute_capabilities)
    return EngineRow(
        plan.name, details.flavour, details.version, capabilities, details.precision, plan.stat().st_size
    )


def latencies(path: Path) -> tuple[LatencyRow, ...]:
    """Every backend's samples."""
    return tuple(
        LatencyRow(name, tuple(row["samples_ms"]), row["conditions"]) for name, row in read_json(path).items()
    )


def pictures(pipeline: Pipeline, verdicts: dict[Precision, dict[str, Any]]) -> tuple[Picture, ...]:
    """A few frames as every model sees them: where models agree least, and some evenly spread over the data."""
    models = {f"ONNX {p.upper()}": Segmenter.open(pipeline.model(p)) for p in pipeline.config.precisions}
    segmenters = {REFERENCE: pipeline.reference, **models}
    dataset = pipeline.evaluation
    count = min(PICTURES, len(dataset))
    remarks = furthest(dataset, verdicts)
    for i in range(count):
        remarks.setdefault((2 * i + 1) * len(dataset) // (2 * count), "")
    return tuple(
        Picture(
            f"{sample.key.name}{remark}",
            sample.frame,
            sample.labels,
            {name: segmenter.segment_fitted(sample.frame) for name, segmenter in segmenters.items()},
        )
        for sample, remark in ((dataset[i], remark) for i, remark in remarks.items())
    )


def furthest(dataset: Dataset, verdicts: dict[Precision, dict[str, Any]]) -> dict[int, str]:
    """The frame on which each model agrees least with the reference: its index, and what to say of it.

    A model that hardly differs on any has none.
    """
    indices = {key.name: i for i, key in enumerate(dataset.keys)}
    found: dict[int, str] = {}
    for precision, verdict in verdicts.items():
        frame = verdict.get("furthest")  # which verdicts of earlier versions lack
        if frame and frame["pixel_agreement"] < SAME:
            said = f", where {precision.upper()} agrees least: on {frame['pixel_agreement']:.1f} % of the pixels"
            found[indices[frame["frame"]]] = said
    return found


def provenance(pipeline: Pipeline) -> dict[str, str]:
    """What the exported model says of its origin."""
    entries = metadata(load_onnx(pipeline.model("fp32")))
    return {str(key): str(value) for key, value in json.loads(entries.get(PROVENANCE_KEY, "{}")).items()}
