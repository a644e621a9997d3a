"""A public repository's checkpoints: how their keys become ours, and how its code prepares an image."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from roadseg.runtime.labels import CITYSCAPES

Triple = tuple[float, float, float]
Weights = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a repository does to an image before the network; fields as in ModelSpec."""

    channels: Literal["rgb", "bgr"] = "rgb"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    @staticmethod
    def of_bytes(channels: Literal["rgb", "bgr"], mean: Triple, std: Triple = (1.0, 1.0, 1.0)) -> Preprocessing:
        """From `mean` and `std` of pixels in 0 to 255, as most repositories of before 2019 write them."""
        first, second = (tuple(value / 255 for value in triple) for triple in (mean, std))
        return Preprocessing(channels, first, second)  # type: ignore[arg-type]


IMAGENET = Preprocessing()
"""RGB by ImageNet's statistics, as in torchvision."""


def as_convolutions(pattern: str) -> Callable[[Weights], Weights]:
    """A `Source.convert` for linear layers that are 1x1 convolutions here: `(out, in)` becomes `(out, in, 1, 1)`.

    Args:
        pattern: regular expression (re.fullmatch, on our keys) of their weights.
    """
    return lambda weights: {k: v[..., None, None] if re.fullmatch(pattern, k) else v for k, v in weights.items()}


@dataclasses.dataclass(frozen=True)
class Source:
    """Checkpoints of one repository for one network."""

    repository: str
    """owner/name, and the commit that was read: "speedinghzl/CCNet@8ccd57a"."""
    net: str
    """Key of MODELS, with "@variant" where the repository's form of the network is a variant."""
    preprocessing: Preprocessing = IMAGENET
    align_corners: bool = True
    """How the repository upsamples the logits to the image."""
    classes: tuple[str, ...] = CITYSCAPES.classes
    rename: tuple[tuple[str, str], ...] = ()
    """Regular expression and replacement, applied in this order (re.sub) to each of their keys."""
    drop: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Regular expression (re.match, on their keys) of what the network does without, and why."""
    absolute: str = ""
    """Regular expression (re.fullmatch, on our keys) of norms' weights that InPlace-ABN reads as |w| + 1e-5."""
    convert: Callable[[Weights], Weights] | None = None
    """What is left to do to the renamed weights, e.g. another layout of a tensor."""
