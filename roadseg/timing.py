"""How long each model takes here, from frame to labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from roadseg.runtime import Dataset, Segmenter, Size
from roadseg.runtime.latency import measure
from roadseg.runtime.pixels import fit


def time_models(models: Mapping[str, Path], dataset: Dataset, count: int, size: Size) -> dict[str, Any]:
    """Latency of each model by name, on the same frames of a data set, brought to `size` beforehand.

    The models are timed one after the other, each after a warm-up.
    """
    segmenters = {name: Segmenter.open(path, size=size) for name, path in models.items()}
    spec = next(iter(segmenters.values())).spec
    frames = [fit(sample.frame, spec) for sample in islice(dataset, count)]
    return {name: measure(segmenter, frames) for name, segmenter in segmenters.items()}
