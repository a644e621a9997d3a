"""Training batches whose content depends on nothing but seed, epoch and position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from roadseg.runtime import DataError, Dataset, Sample

from .augment import Augmentation

Batch = tuple[Tensor, Tensor]
"""Frames `(N, H, W, 3)` uint8 and labels `(N, H, W)` int64."""
Draw = tuple[int, int]
"""Epoch and index of one sample: what seeds its augmentation."""


class AugmentedSamples(TorchDataset[Batch]):
    """A data set's samples, varied anew in every epoch."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, seed: int, keep: bool = False) -> None:
        self.dataset = dataset
        self.augmentation = augmentation
        self.seed = seed
        self.keep = keep
        """Whether samples stay in memory once read or generated, in each process that does it."""
        self._kept: dict[int, Sample] = {}

    def __getitem__(self, draw: Draw) -> Batch:
        epoch, index = draw
        sample = self._sample(index)
        if sample.labels is None:
            raise DataError(f"{self.dataset.name} has no labels for {sample.key.name}; training needs them.")
        rng = np.random.default_rng((self.seed, epoch, index))
        frame, labels = self.augmentation(sample.frame, sample.labels, rng)
        return torch.from_numpy(frame.copy()), torch.from_numpy(labels.astype(np.int64))

    def _sample(self, index: int) -> Sample:
        if index not in self._kept:
            sample = self.dataset[index]
            if not self.keep:
                return sample
            self._kept[index] = sample
        return self._kept[index]


class EpochBatches(Sampler[list[Draw]]):
    """Shuffles once per epoch and deals each batch out to the processes; an incomplete batch is dropped."""

    def __init__(self, length: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length = length
        self.batch = batch
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        if length < batch or batch % world:
            raise DataError(
                f"a batch of {batch} frames cannot be made of {length} frames on {world} processes; "
                "it must not be larger than the data set and divide by the processes."
            )

    def __len__(self) -> int:
        return self.length // self.batch

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for i in range(len(self)):
            batch = order[i * self.batch : (i + 1) * self.batch]
            yield [(self.epoch, int(index)) for index in batch[self.rank :: self.world]]


def load_batches(samples: AugmentedSamples, batches: EpochBatches, workers: int) -> DataLoader[Batch]:
    """Decode and augment in `workers` processes beside the training, or in it with 0."""
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Its own generator: else it draws from the one that dropout uses, and differently with workers.
        generator=torch.Generator(),
    )
