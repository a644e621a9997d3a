"""Which layers have to stay float so that an INT8 model keeps its accuracy."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from roadseg.runtime import (
    CalibrationError,
    Dataset,
    ParityError,
    Sample,
    UsageError,
    sha256_bytes,
    sha256_file,
    write_atomically,
)
from roadseg.runtime.data import refuse_other_classes

from .gpus import GPUS, Gpu
from .quantize import quantize
from .rest import Rest
from .sensitivity import Sensitivity, partition, try_parts
from .sources import Source, keep, make_sources, sources_folder
from .trial import REPAIRS, Point, Repair, Trial, pixels_sha256
from .verdict import Verdict, judge

LEAST_S = 1e-9
"""What a layer saves that is no faster in INT8: so that it goes back to float first."""


@dataclasses.dataclass(frozen=True)
class SearchReport:
    """What was found."""

    path: Path
    """The INT8 model."""
    sha256: str
    model: Path
    """The float model that it was made from: the one that was given, or that equalised."""
    ranges: Path
    """The file that its scales are from."""
    layers: Path
    """TOML file with the layers that stay float; edit it and give it to `quantize` to have others."""
    frames: int
    """That layers were chosen on."""
    float_miou: float | None
    """Percent, on these; None without labels."""
    budget: float
    chosen: Point
    points: tuple[Point, ...]
    """All that were measured, from everything in INT8 on."""
    parts: dict[str, float]
    """The drop that each part of the model causes alone in INT8; empty where the budget was kept before."""
    kept: dict[str, float]
    """The layers that stay float: the drop that each of them causes alone, or its share of its part's."""
    verdict: Verdict
    """On the frames to judge on."""

    def summary(self) -> dict[str, object]:
        """Figures, without the verdict's."""
        figures = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in figures.items() if name not in ("points", "parts", "verdict")}

    def raise_for_budget(self) -> None:
        """Raise ParityError if the verdict's frames show a greater loss than the budget."""
        judged = self.verdict.candidates[-1]
        if judged.drop > self.budget:
            raise ParityError(
                f"{self.path} loses {self.chosen.drop:.2f} points on the frames that its layers were chosen on, "
                f"but {judged.drop:.2f} on those of the verdict; the budget is {self.budget:g}. Choose on more "
                "frames, or to a smaller budget."
            )


@dataclasses.dataclass(frozen=True)
class Layers:
    """Content of a layers file."""

    kept: tuple[str, ...] = ()
    """Layers that stay float, by output tensor."""


def search(
    model: Path,
    ranges: Path | Sequence[Path] | None,
    dataset: Dataset,
    *,
    budget: float,
    out: Path,
    count: int | None = None,
    repair: Dataset | None = None,
    judged: Dataset | None = None,
    gpu: Gpu = GPUS["orin_agx"],
    rest: Rest = "fp16",
) -> SearchReport:
    """Write the INT8 model that loses at most `budget`, with as few operations left in float as a ranking allows.

    Of several files of ranges the one is taken that loses least with everything in INT8. Without any, the model is
    calibrated by every method, as it is and equalised; what is taken of that is left beside `out`, see `keep`.

    If INT8 loses too much, the model is repaired, where there are frames to do it on: the weights of the first
    layers are rounded anew, then biases corrected; what does not help is not done from then on. If it still loses
    too much, modules are tried alone in INT8, and what those consist of that lose most. Layers go back to float in
    the order of what they lose for the time that they save, as few of them as the budget asks for, and those
    return to INT8 that the last of them made needless.

    Ranges that are made, and what was tried alone, are kept beside `out`, so that an interrupted search goes on.
    The frames stay in memory, because every trial reads them.

    Args:
        model: float32, as `export` writes it.
        ranges: what `calibrate` wrote for it; several to choose from; None to make them, on frames of `repair`.
        dataset: to choose layers on; with labels mIoU is measured, without them agreement with the float model.
        budget: percentage points that may be lost.
        out: the INT8 model; the layers that stay float go beside it, as `.layers.toml`.
        count: frames of the data set to take, evenly spread; all without it.
        repair: frames on which the model is repaired before layers go back to float; not at all without it.
        judged: frames that nothing was chosen on, for the verdict; those of `dataset` without it.
        gpu: to estimate latencies for.
        rest: see `quantize`.

    Raises:
        ArtifactError: if a file cannot be read, is damaged, or is no model or no ranges.
        CalibrationError: if the model is typed already or has nothing to quantise, or the ranges are of another.
        DataError: if labels are of other classes than the model's.
        UsageError: if there are no frames, or nothing to take ranges from, or the budget is negative.
    """
    files = [ranges] if isinstance(ranges, Path) else ranges
    samples = [dataset[index] for index in spread(len(dataset), count)]
    if not samples or not (repair if files is None else files) or budget < 0:
        raise UsageError(
            "a search needs frames, ranges or frames to make them on, and a budget of 0 or more points; "
            f"got {len(samples)}, {len(files or ())}, {budget:g}."
        )
    trial = Trial(model, samples, gpu, repair, rest)
    for labelled in (dataset, judged or dataset):
        refuse_other_classes(labelled, trial.reference.spec)
    if files is None and repair is not None:
        sources = make_sources(model, repair, sources_folder(model, repair, out))
    else:
        sources = [Source(model, file) for file in files or ()]
    whole = {source: trial.of(source.model).measure(source.ranges, ()) for source in sources}
    best = min(sources, key=lambda source: whole[source].drop)
    trial = trial.of(best.model)
    search = Search(trial, best.ranges, budget, whole[best])
    if not search.enough(0):
        search.order_layers(out.with_suffix(".sensitivity.json"))
    chosen = fewest(len(search.ranked), search.enough)
    if chosen == len(trial.layers):
        worst = search.ranked[-1]
        known = "Equalise the model, calibrate by another method, or use" if files else "Use"
        raise CalibrationError(
            f"no INT8 model of {model} loses at most {budget:g} points with these ranges: even "
            f"{worst} alone loses {search.alone.layers[worst]:.2f}. {known} FP16."
        )
    needed, point = search.trim(chosen)
    kept = {layer: search.alone.layers[layer] for layer in needed}
    layers = out.with_suffix(".layers.toml")
    trial.write(out, best.ranges, kept, point.repaired)
    write_atomically(layers, layers_text(kept).encode())
    verdict = verdict_on(trial, best.ranges, out, samples if judged is None else list(judged), bool(kept), budget)
    if files is None:
        best = keep(best, model, out)
    return SearchReport(
        path=out,
        sha256=sha256_file(out),
        model=best.model,
        ranges=best.ranges,
        layers=layers,
        frames=len(samples),
        float_miou=trial.float_miou,
        budget=budget,
        chosen=point,
        points=(*(whole[source] for source in sources if whole[source] is not search.tried[0]), *search.tried),
        parts=search.alone.parts,
        kept=kept,
        verdict=verdict,
    )


class Search:
    """How few layers have to go back to float."""

    def __init__(self, trial: Trial, ranges: Path, budget: float, whole: Point) -> None:
        self.trial = trial
        self.ranges = ranges
        self.budget = budget
        self.alone = Sensitivity({}, {})
        """What parts of the model lose; nothing before that was asked for."""
        self.ranked: list[str] = []
        """Layers, in the order in which they go back to float."""
        self.points: dict[int, Point] = {}
        """The best model by number of layers that stay float."""
        self.tried = [whole]
        """All that were measured."""

    def enough(self, count: int) -> bool:
        """Whether it is enough that so many layers stay float; with none of them has to be asked first."""
        if count not in self.points:
            self.points[count] = self._best(count)
        return self.points[count].drop <= self.budget

    def order_layers(self, memory: Path) -> None:
        """Try parts of the model alone in INT8, and find the order in which its layers go back to float.

        Args:
            memory: file that keeps what was measured, see `try_parts`.
        """
        trial = self.trial
        files = (sha256_file(path) for path in (trial.model, self.ranges))
        self.alone = try_parts(
            partition(trial.layers),
            lambda layers: (
                trial.measure(self.ranges, [layer for layer in trial.layers if layer not in layers]).drop
            ),
            self.budget,
            memory,
            sha256_bytes(" ".join((*files, pixels_sha256(trial.samples), trial.rest)).encode()),
        )
        self.ranked = rank(self.alone.layers, trial.saved_s(self.ranges))

    def trim(self, count: int) -> tuple[list[str], Point]:
        """Of the first `count` layers, which are enough, those that have to stay float, and the model with them.

        The last one made them enough, and may do so without many of those before it: a large layer that does harm
        comes behind small ones that do little.
        """
        if count < 2:
            return self.ranked[:count], self.points[count]
        *others, last = self.ranked[:count]
        found = {len(others): self.points[count]}

        def enough(number: int) -> bool:
            found[number] = self._measure([*others[:number], last], self.points[count].repaired)
            return found[number].drop <= self.budget

        number = fewest(len(others), enough)
        return [*others[:number], last], found[number]

    def _best(self, count: int) -> Point:
        """The model with so many layers in float that loses least; it is repaired only if it loses too much."""
        kept = self.ranked[:count]
        best = self._measure(kept, "none") if count else self.tried[0]
        for repair in self._repairs(count):
            if best.drop <= self.budget:
                break
            best = min(best, self._measure(kept, repair), key=lambda point: point.drop)
        return best

    def _repairs(self, count: int) -> Sequence[Repair]:
        """What may be done: behind the first time only what helped most then."""
        if self.trial.repair is None:
            return ()
        return REPAIRS[1:] if count == 0 else tuple({self.points[0].repaired} - {"none"})

    def _measure(self, kept: Sequence[str], repaired: Repair) -> Point:
        point = self.trial.measure(self.ranges, kept, repaired)
        self.tried.append(point)
        return point


def rank(drops: Mapping[str, float], saved_s: Mapping[str, float]) -> list[str]:
    """Layers by what INT8 loses in them for each second that it saves there, the most harmful first.

    >>> rank({"a": 0.1, "b": 0.3, "c": 0.2}, {"a": 1e-6, "b": 9e-6, "c": 0.0})
    ['c', 'a', 'b']
    """
    return sorted(drops, key=lambda layer: drops[layer] / max(saved_s[layer], LEAST_S), reverse=True)


def spread(size: int, count: int | None) -> list[int]:
    """Indices of `count` of `size` things, evenly spread; of all without it, or if there are not so many.

    >>> spread(7, 3)
    [1, 3, 5]
    """
    count = size if count is None else min(count, size)
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]


def fewest(most: int, enough: Callable[[int], bool]) -> int:
    """The smallest number from 0 to `most` that is enough, if more is never less; `most` is not asked about.

    >>> fewest(8, lambda number: number >= 3)
    3
    """
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def layers_text(kept: dict[str, float]) -> str:
    """A layers file: each layer with what it loses alone."""
    lines = [f"    {msgspec.json.encode(layer).decode()},  # {drop:.3f} points" for layer, drop in kept.items()]
    return "\n".join(
        ["# Layers that stay float, the most harmful for the time they save first.", "kept = [", *lines, "]", ""]
    )


def verdict_on(
    trial: Trial, ranges: Path, out: Path, samples: Sequence[Sample], mixed: bool, budget: float
) -> Verdict:
    """The float model, FP16, everything in INT8, and what was found if that is another."""
    with tempfile.TemporaryDirectory() as folder:
        half, whole = Path(folder) / "fp16.onnx", Path(folder) / "int8.onnx"
        quantize(trial.model, "fp16", out=half)
        models = {"FP32": trial.model, "FP16": half, "INT8": out}
        if mixed:
            trial.write(whole, ranges, (), "none")
            models |= {"INT8": whole, "mixed": out}
        return judge(models, samples, gpu=trial.gpu, budget=budget)
