"""What a data set looks like to everything that reads frames: calibration, evaluation, parity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import DataError
from .labels import LabelSet
from .spec import ModelSpec


@dataclasses.dataclass(frozen=True)
class Key:
    """Names one frame of a data set without decoding it."""

    name: str
    """Unique within data set and split, e.g. "0016E5_07959"."""
    group: str
    """Sequence, city or drive the frame belongs to; choosing images is stratified by it."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One frame and, where there is one, its label map."""

    key: Key
    frame: npt.NDArray[np.uint8]
    """`(H, W, 3)` uint8 RGB."""
    labels: npt.NDArray[np.uint8] | None = None
    """`(H, W)` uint8 train ids, 255 where unlabelled; None where the data set has none."""


class Dataset(Protocol):
    """A finite, indexed collection of samples. Indexing decodes; `keys` does not."""

    @property
    def name(self) -> str:
        """As on the command line, e.g. "camvid:../shared/data/camvid"."""

    @property
    def split(self) -> str:
        """E.g. "train" or "val"."""

    @property
    def label_set(self) -> LabelSet: ...

    @property
    def keys(self) -> tuple[Key, ...]: ...

    @property
    def fingerprint(self) -> str:
        """Another one whenever a frame, a label or their order may have changed; nothing is decoded for it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...


def refuse_other_classes(frames: Dataset | Iterable[Any], spec: ModelSpec) -> None:
    """Raise DataError if frames are a data set with labels, and of other classes than a model's answers.

    Samples in a list name no classes.
    """
    dataset: Any = frames
    if not hasattr(dataset, "label_set"):
        return
    told, known = dataset.label_set.classes, spec.evaluated
    if told == known or not len(dataset) or dataset[0].labels is None:
        return
    ours, theirs = (f"{len(names)} classes ({', '.join(names[:3])}, ...)" for names in (known, told))
    raise DataError(
        f"{dataset.name} has labels of {theirs}, {spec.name} answers with {ours}. Give data with the model's "
        "classes; for a folder, name them in its classes.txt."
    )
