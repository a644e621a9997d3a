"""A data set that is a list of files; its layouts differ only in how the list is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from roadseg.runtime import Key, LabelSet, Sample, sha256_bytes

from .images import read_sample


@dataclasses.dataclass(frozen=True)
class Listing:
    """One frame's files."""

    key: Key
    frame: Path
    labels: Path | None


@dataclasses.dataclass(frozen=True)
class ListedDataset:
    """Frames and labels read from files when they are asked for."""

    name: str
    """As on the command line."""
    split: str
    label_set: LabelSet
    listings: tuple[Listing, ...]
    train_ids: npt.NDArray[np.uint8] | None = None
    """`(256,)` uint8: train id of each value in a label file; None where files hold train ids."""

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        return tuple(listing.key for listing in self.listings)

    @cached_property
    def fingerprint(self) -> str:
        files = [path for listing in self.listings for path in (listing.frame, listing.labels) if path]
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return sha256_bytes(repr((self.name, self.split, states)).encode())

    def __len__(self) -> int:
        return len(self.listings)

    def __getitem__(self, index: int) -> Sample:
        listing = self.listings[index]
        sample = read_sample(listing.key, listing.frame, listing.labels)
        if sample.labels is None or self.train_ids is None:
            return sample
        return dataclasses.replace(sample, labels=self.train_ids[sample.labels])

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))
