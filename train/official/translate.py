"""From the authors' state dict to ours, with an account of every key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from torch import Tensor, nn, zeros

from .source import Source, Weights

ABN_EPSILON = 1e-5
"""What InPlace-ABN adds to |gamma| (mapillary/inplace_abn: `weight.abs() + eps`)."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """Weights under our keys, and what became of each of theirs."""

    source: Source
    weights: Weights
    mapped: dict[str, str]
    """Our key by theirs."""
    dropped: dict[str, str]
    """Why, by their key."""
    filled: dict[str, str]
    """Why, by our key: what a checkpoint may leave out."""
    missing: tuple[str, ...]
    """Keys of ours that nothing was found for."""
    unexpected: tuple[str, ...]
    """Keys of theirs that nothing is known about."""
    misshapen: tuple[str, ...]
    """Their keys with both shapes, where these differ."""

    @property
    def problems(self) -> int:
        """How many keys stand in the way; 0 for an exact match."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)


def translate(weights: Mapping[str, Tensor], source: Source, net: nn.Module) -> Translation:
    """Bring a repository's weights under the keys of `net`.

    Args:
        weights: the authors' state dict, without its envelope and without `module.`.
        source: the repository.
        net: `source.net`, whose keys and shapes are asked for; it may be without values.
    """
    dropped = {key: reason for key in weights if (reason := drop_reason(key, source))}
    mapped = {key: rename(key, source) for key in weights if key not in dropped}
    renamed = {ours: weights[key] for key, ours in mapped.items()}
    renamed = source.convert(renamed) if source.convert else renamed
    if source.absolute:
        renamed = {k: v.abs() + ABN_EPSILON if re.fullmatch(source.absolute, k) else v for k, v in renamed.items()}
    own = net.state_dict()
    filled = {
        key: "counts batches, not used at inference"
        for key in own.keys() - renamed.keys()
        if key.endswith("num_batches_tracked")
    }
    known = {key: renamed[key] for key in own if key in renamed}
    return Translation(
        source=source,
        weights={**known, **{key: zeros(own[key].shape, dtype=own[key].dtype) for key in filled}},
        mapped={key: ours for key, ours in mapped.items() if ours in own},
        dropped=dropped,
        filled=filled,
        missing=tuple(sorted(own.keys() - renamed.keys() - filled.keys())),
        unexpected=tuple(sorted(key for key, ours in mapped.items() if ours in renamed and ours not in own)),
        misshapen=tuple(
            f"{key} {tuple(known[key].shape)} in place of {tuple(own[key].shape)}"
            for key in known
            if known[key].shape != own[key].shape
        ),
    )


def rename(key: str, source: Source) -> str:
    """Our name for one of their keys."""
    for pattern, replacement in source.rename:
        key = re.sub(pattern, replacement, key)
    return key


def drop_reason(key: str, source: Source) -> str:
    """Why one of their keys is not needed; empty if it is."""
    return next((reason for pattern, reason in source.drop.items() if re.match(pattern, key)), "")
