"""A verdict on INT8, what there was to choose from, and where INT8 does harm, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from roadseg.calib import Point, Verdict, frontier, worst_parts


def table(verdict: Verdict) -> Table:
    """A line for each model, the sentence below, and the frame that the last model is furthest off on."""
    last = verdict.candidates[-1]
    furthest = f"It is furthest from FP32 on {last.furthest}: {last.furthest_agreement:.1f} % of the pixels agree."
    caption = f"{verdict.sentence}\n{furthest}"
    shown = Table(box=None, header_style="bold", caption=caption, caption_justify="left")
    headings = ("", "mIoU", "lost", "95 %", "worst class", "MACs in INT8", f"{verdict.gpu}, estimated")
    for heading in headings:
        shown.add_column(heading)
    for row in verdict.candidates:
        low, high = row.ci95
        shown.add_row(
            row.precision,
            "" if row.miou is None else f"{row.miou:.2f}",
            f"{row.drop:.3f}",
            "" if math.isnan(low) else f"{low:.2f} to {high:.2f}",
            f"{row.worst_class} {-row.worst_class_drop:.2f}" if row.worst_class else "",
            f"{100 * row.int8_mac_share:.1f} %",
            f"{row.estimated_ms:.3f} ms",
        )
    return shown


def curve(points: Sequence[Point], gpu: str) -> Table:
    """What can be had of all that a search has measured: the fastest, and what loses less for more time."""
    shown = Table(box=None, header_style="bold", title="accuracy against time", title_justify="left")
    for heading in ("layers in float", "repaired", "ranges", "lost", "95 %", f"{gpu}, estimated"):
        shown.add_column(heading, overflow="fold")
    for point in frontier(points):
        low, high = point.ci95
        shown.add_row(
            str(point.kept),
            "" if point.repaired == "none" else point.repaired,
            point.ranges,
            f"{point.drop:.3f}",
            "" if math.isnan(low) else f"{low:.2f} to {high:.2f}",
            f"{point.estimated_ms:.3f} ms",
        )
    return shown


def harm(parts: Mapping[str, float]) -> Table:
    """The parts of a model that lose most alone in INT8; modules end in a slash."""
    title = "lost by parts of the model alone in INT8"
    shown = Table(box=None, header_style="bold", title=title, title_justify="left")
    for heading in ("part", "lost"):
        shown.add_column(heading, overflow="fold")
    for name, lost in worst_parts(parts).items():
        shown.add_row(name, f"{lost:.3f}")
    return shown
