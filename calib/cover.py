"""Calibration images that show every class, where there are labels to know it by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from roadseg.runtime import Dataset, track

from .choose import rank

LOOKED_AT = 500
"""Images beyond the chosen ones that are searched for a class that those lack, at most."""


def cover(dataset: Dataset, chosen: Sequence[int], seed: int) -> tuple[int, ...]:
    """The chosen images, some of them exchanged for others that show a class which no chosen one has.

    What goes is an image that shows no class alone, of the newcomer's group if there is one there, otherwise of
    any group that keeps another. Nothing but the chosen images is looked at while they lack nothing; data sets
    without labels are left as they are.

    Args:
        dataset: of which images were chosen.
        chosen: indices, in rising order.
        seed: of the order in which others are looked at.

    Raises:
        DataError: if an image cannot be read.
    """
    if len(chosen) == len(dataset):
        return tuple(chosen)
    shown: dict[int, frozenset[int]] = {}
    for index in track(chosen, "look for classes"):
        found = classes_in(dataset, index)
        if found is None:
            return tuple(chosen)
        shown[index] = found
    missing = set(range(len(dataset.label_set.classes))).difference(*shown.values())
    newcomers: set[int] = set()
    for index in candidates(dataset, shown, seed) if missing else ():
        found = classes_in(dataset, index) or frozenset()
        leaving = dispensable(dataset, shown, newcomers, index)
        if found & missing and leaving is not None:
            del shown[leaving]
            shown[index] = found
            newcomers.add(index)
            missing -= found
        if not missing:
            break
    return tuple(sorted(shown))


def classes_in(dataset: Dataset, index: int) -> frozenset[int] | None:
    """Train ids of classes in an image's labels; None where it has none."""
    labels = dataset[index].labels
    known = range(len(dataset.label_set.classes))
    return None if labels is None else frozenset(np.unique(labels).tolist()).intersection(known)


def candidates(dataset: Dataset, chosen: Mapping[int, object], seed: int) -> Sequence[int]:
    """Images to look at, in a seeded order."""
    others = [index for index in range(len(dataset)) if index not in chosen]
    return sorted(others, key=lambda index: rank(seed, dataset.keys[index]))[:LOOKED_AT]


def dispensable(
    dataset: Dataset, shown: Mapping[int, frozenset[int]], newcomers: set[int], index: int
) -> int | None:
    """An image that can go for another one: one that shows no class alone; None if there is none."""
    counts = Counter(label for labels in shown.values() for label in labels)
    groups = Counter(dataset.keys[other].group for other in shown)
    group = dataset.keys[index].group

    def can_go(other: int) -> bool:
        own = dataset.keys[other].group
        return (own == group or groups[own] > 1) and all(counts[label] > 1 for label in shown[other])

    able = [other for other in shown if other not in newcomers and can_go(other)]
    return max(able, key=lambda other: (dataset.keys[other].group == group, other), default=None)
