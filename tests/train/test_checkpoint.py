import pickle

import pytest
import safetensors.torch
import torch

from roadseg.runtime import ArtifactError, CheckpointError, ModelSpec, UsageError
from roadseg.train.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_network,
    load_weights,
    open_backend,
    read_weights,
    save_checkpoint,
)
from roadseg.train.models import build

SPEC = ModelSpec("fastscnn", 64, 96, classes=("road", "sky", "car"))


@pytest.fixture
def checkpoint(tmp_path):
    net = build("fastscnn", 3)
    save_checkpoint(tmp_path / "net.safetensors", Checkpoint(SPEC, net.state_dict(), {"data": "made up"}))
    return tmp_path / "net.safetensors"


def test_a_checkpoint_comes_back_with_spec_and_history(checkpoint):
    net, loaded = load_network(checkpoint)
    assert loaded.spec == SPEC
    assert loaded.provenance == {"data": "made up"}
    assert all((net.state_dict()[k] == v).all() for k, v in loaded.weights.items())


def test_the_same_checkpoint_is_written_as_the_same_bytes(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "again.safetensors", load_checkpoint(checkpoint))
    assert (tmp_path / "again.safetensors").read_bytes() == checkpoint.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_short_is_refused(checkpoint, share):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="cut short"):
        load_checkpoint(checkpoint)


def test_weights_without_a_spec_say_that_one_is_needed(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="Give the spec with --spec"):
        load_checkpoint(tmp_path / "bare.safetensors")


def test_other_keys_are_named_both_ways(tmp_path):
    net = build("fastscnn", 3)
    weights = dict(net.state_dict())
    weights["backbone.extra"] = weights.pop("classifier.conv.1.bias")
    weights["classifier.conv.1.weight"] = torch.zeros(7, 128, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        load_weights(net, weights, tmp_path / "other.pth")
    message = str(caught.value)
    assert "missing classifier.conv.1.bias" in message
    assert "unexpected backbone.extra" in message
    assert "classifier.conv.1.weight (7, 128, 1, 1) in place of (3, 128, 1, 1)" in message


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": {f"module.{k}": v for k, v in w.items()}, "optimizer": {}},
        lambda w: {"net": w, "step": 5},
    ],
)
def test_the_envelopes_of_training_scripts_are_taken_off(tmp_path, wrap):
    weights = dict(build("fastscnn", 3).state_dict())
    torch.save(wrap(weights), tmp_path / "net.pth")
    assert read_weights(tmp_path / "net.pth").keys() == weights.keys()


class Trap:
    def __reduce__(self):
        return (open, ("/tmp/roadseg-trap", "w"))  # noqa: S108


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.write_bytes(pickle.dumps({"state_dict": Trap()})),
        lambda p: torch.save({"weights": Trap()}, p),
        lambda p: p.write_bytes(b"PK\x03\x04 not a checkpoint"),
        lambda p: p.write_bytes(b""),
    ],
)
def test_a_file_that_could_run_code_or_is_no_checkpoint_is_refused(tmp_path, spoil):
    spoil(tmp_path / "net.pth")
    with pytest.raises(
        CheckpointError, match=r"net\.pth cannot be read as weights .*cut short, or holds more than tensors"
    ):
        read_weights(tmp_path / "net.pth")


def test_a_file_of_anything_but_tensors_is_no_checkpoint(tmp_path):
    torch.save({"state_dict": {"a": 1}}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_weights(tmp_path / "net.pth")


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="give a file, or one of camvid, scenes"):
        find_checkpoint("kitti")


def test_a_checkpoint_opens_at_another_size(checkpoint):
    spec, backend = open_backend(checkpoint, (32, 64))
    assert spec.size == (32, 64)
    labels = backend(torch.zeros(2, 32, 64, 3, dtype=torch.uint8).numpy())
    assert labels.shape == (2, 32, 64)
