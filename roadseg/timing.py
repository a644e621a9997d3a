"""How long each model takes here, from frame to labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from roadseg.runtime import Dataset, Latency, Segmenter
from roadseg.runtime.latency import measure
from roadseg.runtime.pixels import fit


def time_models(segmenters: Mapping[str, Segmenter], dataset: Dataset, count: int) -> dict[str, Latency]:
    """Latency of each model by name, on the same frames of a data set, brought to the models' size beforehand.

    The models are timed one after the other, each after a warm-up.
    """
    spec = next(iter(segmenters.values())).spec
    frames = [fit(sample.frame, spec) for sample in islice(dataset, count)]
    return {name: measure(segmenter, frames) for name, segmenter in segmenters.items()}
