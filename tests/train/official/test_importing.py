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


def random_weights(shapes):
    """Weights of these shapes; variances are positive, as a batch norm's are."""
    return {
        name: torch.rand(shape) if name.endswith("running_var") else torch.randn(shape) * 0.1
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source.repository}:{source.net}")
def test_the_authors_checkpoint_imports_with_nothing_missing_or_unexpected(source, tmp_path):
    weights = random_weights(keys_of(source))
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, tmp_path / "their.pth")
    repository = source.repository.partition("@")[0]
    translation = read_official(source.net, tmp_path / "their.pth", repository)
    assert (translation.missing, translation.unexpected, translation.misshapen) == ((), (), ())
    assert translation.mapped.keys() | translation.dropped.keys() == weights.keys()
    net, spec = import_checkpoint(source.net, tmp_path / "their.pth", repository=repository)
    assert not net.training
    assert (spec.name, spec.mean) == (source.net, source.preprocessing.mean)
