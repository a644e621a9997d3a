"""Frames run through a model while somebody looks at tensors inside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from roadseg.runtime import Dataset, ModelSpec, track
from roadseg.runtime.pixels import fit

from .calibrate import portable_name
from .choose import ImageList, choose, describe
from .ranges import batch_of, expose, feed, open_session

Frame = npt.NDArray[np.uint8]


class Frames:
    """Frames of a data set at a model's size, read anew each time they are gone through."""

    def __init__(self, dataset: Dataset, spec: ModelSpec, count: int, seed: int, force: bool) -> None:
        """Choose them, see `choose`; errors as there."""
        self.dataset = dataset
        self.spec = spec
        self.seed = seed
        self.indices = choose(dataset, count, seed, force)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Frame]:
        return (fit(self.dataset[index].frame, self.spec) for index in self.indices)

    def listed(self) -> ImageList:
        """Which images they are."""
        samples = (self.dataset[index] for index in self.indices)
        images = tuple(describe(sample.key, sample.frame) for sample in samples)
        return ImageList(portable_name(self.dataset.name), self.dataset.split, self.seed, images)


def observe(
    model: onnx.ModelProto, spec: ModelSpec, tensors: Sequence[str], frames: Iterable[Frame], what: str
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """The float32 tensors of these names, frame by frame; `what` is the word that progress is shown with."""
    session = open_session(expose(model, tensors))
    name, batch = model.graph.input[0].name, batch_of(model)
    for frame in track(frames, what):
        yield dict(zip(tensors, session.run(None, {name: feed(frame, spec, batch)}), strict=True))
