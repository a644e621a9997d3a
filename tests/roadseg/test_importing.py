import pytest
import torch

from roadseg.runtime import Segmenter
from roadseg.train import build


@pytest.fixture
def theirs(tmp_path):
    """A checkpoint of Tramac's Fast-SCNN as a DataParallel training script saves it."""
    weights = build("fastscnn", 19, aux=True).state_dict()
    path = tmp_path / "their.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}, "best": 54.8}, path)
    return path


def test_the_authors_checkpoint_becomes_one_that_every_command_opens(roadseg, theirs, tmp_path):
    out = tmp_path / "ours.safetensors"
    done = roadseg("import", "--net", "fastscnn", "--from", theirs, "--out", out, "--size", "200x400", "--json")
    assert done.code == 0
    assert len(done.json["mapped"]) == 268
    assert set(done.json["dropped"].values()) == {"auxiliary head, for training only"}
    assert done.json["missing"] == done.json["unexpected"] == []
    assert Segmenter.open(out).spec.size == (192, 416)
    provenance = roadseg("inspect", out, "--json").json["provenance"]
    assert provenance["imported_from"].startswith("Tramac/Fast-SCNN-pytorch")


def test_a_checkpoint_with_another_key_is_refused_and_every_key_told(roadseg, theirs, tmp_path):
    content = torch.load(theirs, weights_only=True)
    content["state_dict"]["module.surprise"] = torch.ones(1)
    del content["state_dict"]["module.classifier.conv.1.bias"]
    torch.save(content, theirs)
    command = ("import", "--net", "fastscnn", "--from", theirs, "--out", tmp_path / "ours.safetensors", "--json")
    refused = roadseg(*command)
    assert refused.code == 1
    assert (refused.json["missing"], refused.json["unexpected"]) == (["classifier.conv.1.bias"], ["surprise"])
    assert "1 missing, e.g. classifier.conv.1.bias; 1 unexpected, e.g. surprise" in refused.err
    assert not (tmp_path / "ours.safetensors").exists()
    assert roadseg(*command, "--no-strict").code == 0
    assert (tmp_path / "ours.safetensors").is_file()


def test_an_unknown_network_or_suffix_is_wrong_usage(roadseg, theirs, tmp_path):
    unknown = roadseg("import", "--net", "nothing", "--from", theirs, "--out", tmp_path / "x.safetensors")
    suffix = roadseg("import", "--net", "fastscnn", "--from", theirs, "--out", tmp_path / "x.pth")
    assert (unknown.code, suffix.code) == (2, 2)
    assert "no network 'nothing'; known are deeplabv3_r101, " in unknown.err
    assert ".safetensors" in suffix.err
