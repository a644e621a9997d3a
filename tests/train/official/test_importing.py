"""Every repository's checkpoint, as its authors name and shape it, becomes the network.

keys/ holds names and shapes of each repository's state dict, read from its code at the commit named in its Source:
one "name shape" a line, in the file `<owner>_<name>__<net>.txt`.
"""

from pathlib import Path

import pytest
import torch

from roadseg.train.official import SOURCES, import_checkpoint, read_official

KEYS = Path(__file__).parent / "keys"


def keys_of(source):
    repository = source.repository.partition("@")[0].replace("/", "_")
    lines = (KEYS / f"{repository}__{source.net}.txt").read_text().splitlines()
    return {name: tuple(map(int, shape)) for name, *shape in (line.split() for line in lines)}


def weights_of(shapes):
    """Weights of these shapes, each of one value, in memory and on disk alike."""
    return {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source.repository}:{source.net}")
def test_the_authors_checkpoint_imports_with_nothing_missing_or_unexpected(source, tmp_path):
    weights = weights_of(keys_of(source))
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, tmp_path / "their.pth")
    repository = source.repository.partition("@")[0]
    translation = read_official(source.net, tmp_path / "their.pth", repository)
    assert (translation.missing, translation.unexpected, translation.misshapen) == ((), (), ())
    assert translation.mapped.keys() | translation.dropped.keys() == weights.keys()
    net, spec = import_checkpoint(source.net, tmp_path / "their.pth", repository=repository)
    assert not net.training
    assert (spec.name, spec.mean) == (source.net, source.preprocessing.mean)
