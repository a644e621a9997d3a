"""A verdict on INT8 for the terminal."""

from __future__ import annotations

import math

from rich.table import Table

from roadseg.calib import Verdict


def table(verdict: Verdict) -> Table:
    """A line for each model, and the sentence below."""
    shown = Table(box=None, header_style="bold", caption=verdict.sentence, caption_justify="left")
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
