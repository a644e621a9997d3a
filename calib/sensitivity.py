"""What INT8 loses in each part of a model: in whole modules, and where that is much in what these consist of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from roadseg.runtime import track, write_atomically


@dataclasses.dataclass(frozen=True)
class Part:
    """Layers that are tried in INT8 together, and no others."""

    name: str
    """A module's path with a slash at the end, or the layer's output tensor."""
    layers: tuple[str, ...]
    """By output tensor, in graph order."""
    parts: tuple[Part, ...] = ()
    """What it consists of, disjoint; nothing if it is a single layer."""


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What was measured alone in INT8, in percentage points that are lost."""

    parts: dict[str, float]
    """By name of a part, in the order in which they were tried."""
    layers: dict[str, float]
    """By layer; each of a part that was not taken apart has the same share of what that loses."""


def partition(layers: Sequence[str]) -> Part:
    """The modules that layers belong to, as their names tell: paths with slashes or dots between their parts.

    >>> [part.name for part in partition(["/stem/Conv", "/head/0/Conv", "/head/1/Conv"]).parts]
    ['/stem/Conv', '/head/']
    """
    paths = {layer: re.split(r"(?<=[/.])", layer) for layer in layers}
    return _part(paths, list(layers))


def _part(paths: dict[str, list[str]], layers: list[str]) -> Part:
    if len(layers) == 1:
        return Part(layers[0], tuple(layers))
    depth = 0
    while len({paths[layer][depth] for layer in layers}) == 1:
        depth += 1
    inside: dict[str, list[str]] = {}
    for layer in layers:
        inside.setdefault(paths[layer][depth], []).append(layer)
    name = "".join(paths[layers[0]][:depth])
    return Part(name, tuple(layers), tuple(_part(paths, group) for group in inside.values()))


@dataclasses.dataclass(frozen=True)
class Known:
    """What was measured before, as kept on disk between runs."""

    key: str
    """Hash of what the figures depend on."""
    drops: dict[str, float]
    """By name of a part."""


def try_parts(
    whole: Part, measure: Callable[[Collection[str]], float], budget: float, memory: Path, key: str
) -> Sensitivity:
    """Try the parts of a model alone in INT8, and what they consist of where it may matter; see `worst_first`.

    Args:
        whole: all layers; it is not tried itself.
        measure: what is lost, in points, if these layers run in INT8 and no others.
        budget: points that may be lost in all.
        memory: file that keeps what was measured; an interrupted run goes on from it.
        key: hash of what the figures depend on; what the file has under another one does not count.
    """
    known = recall(memory, key)

    def loss(part: Part) -> float:
        if part.name not in known:
            known[part.name] = measure(part.layers)
            write_atomically(memory, msgspec.json.encode(Known(key, known)))
        return known[part.name]

    tried = dict(track(worst_first(whole, loss, budget), "try parts of the model alone"))
    left = {part: lost for part, lost in tried.items() if not any(inner in tried for inner in part.parts)}
    return Sensitivity(
        {part.name: lost for part, lost in tried.items()},
        {layer: lost / len(part.layers) for part, lost in left.items() for layer in part.layers},
    )


def worst_first(whole: Part, loss: Callable[[Part], float], budget: float) -> Iterator[tuple[Part, float]]:
    """Parts of a model with what they lose: all at first, then always those of the module that loses most.

    It ends when the modules that were not taken apart lose no more than the budget together: none of their layers
    has to be told from the others then, if losses add up.
    """
    fresh: Sequence[Part] = whole.parts or (whole,)
    modules: dict[Part, float] = {}
    while fresh:
        for part in fresh:
            lost = loss(part)
            if part.parts and lost > 0:
                modules[part] = lost
            yield part, lost
        fresh = ()
        if sum(modules.values()) > budget:
            worst = max(modules, key=modules.__getitem__)
            del modules[worst]
            fresh = worst.parts


def worst_parts(parts: Mapping[str, float], count: int = 10) -> dict[str, float]:
    """The parts that lose most, the worst first.

    >>> worst_parts({"/stem/": 0.1, "/body/": 0.5, "/head/": 0.3}, 2)
    {'/body/': 0.5, '/head/': 0.3}
    """
    return dict(sorted(parts.items(), key=lambda part: part[1], reverse=True)[:count])


def recall(memory: Path, key: str) -> dict[str, float]:
    """What a file has under this key; nothing where there is none, or it has another."""
    try:
        found = msgspec.json.decode(memory.read_bytes(), type=Known)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return found.drops if found.key == key else {}
