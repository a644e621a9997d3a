import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from roadseg.runtime import ArtifactError, DataError, Segmenter, UsageError, evaluate
from roadseg.train import Augmentation, Loss, Recipe, Run, load_checkpoint, open_data, train
from roadseg.train.batches import EpochBatches
from roadseg.train.data import open_camvid
from roadseg.train.loop import Session
from roadseg.train.parallel import Processes

RECIPE = Recipe(
    Augmentation((64, 96), scale=(1.0, 1.2)), Loss(), epochs=3, batch=4, optimizer="adamw", rate=5e-3, ema=0.5
)
RUN = Run("fastscnn", (64, 96), RECIPE, seed=1)


def weights_of(path):
    return load_checkpoint(path).weights


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_training_learns_the_road(camvid_root, tmp_path):
    data = open_camvid(camvid_root, "train")
    # Over ten seeds the road's IoU is 0.91 to 0.95; with fewer epochs and a higher rate it depends on the machine.
    run = Run("fastscnn", (64, 96), Recipe(RECIPE.augmentation, epochs=50, batch=4, optimizer="adamw", rate=2e-3))
    checkpoint = train(run, data, tmp_path / "net.safetensors", val=open_camvid(camvid_root, "val"), workers=0)
    result = evaluate(Segmenter.open(tmp_path / "net.safetensors"), open_camvid(camvid_root, "val"))
    assert result.iou[3] > 0.8
    assert checkpoint.provenance["data"] == "camvid train"
    assert checkpoint.provenance["miou"] == f"{100 * result.miou:.2f} on camvid val, 4 frames"


def test_the_same_run_gives_the_same_weights_whatever_reads_the_frames(camvid_root, tmp_path):
    data = open_camvid(camvid_root, "train")
    for name, workers, keep in (("a", 0, False), ("b", 2, True)):
        train(RUN, data, tmp_path / f"{name}.safetensors", workers=workers, keep=keep)
    assert same(weights_of(tmp_path / "a.safetensors"), weights_of(tmp_path / "b.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    from roadseg.train import Augmentation, Loss, Recipe, Run, train
    from roadseg.train.data import open_camvid
    recipe = Recipe(
        Augmentation((64, 96), scale=(1.0, 1.2)), Loss(), epochs=3, batch=4, optimizer="adamw", rate=5e-3, ema=0.5
    )
    data = open_camvid(Path(sys.argv[1]), "train")
    torch.set_num_threads(1)
    train(Run("fastscnn", (64, 96), recipe, seed=1), data, Path(sys.argv[2]), workers=0)
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(camvid_root, tmp_path):
    out, state = tmp_path / "killed.safetensors", tmp_path / "killed.safetensors.state"
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(camvid_root), str(out)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not state.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    subprocess.run(command, check=True)
    assert not state.exists()
    train(RUN, open_camvid(camvid_root, "train"), tmp_path / "whole.safetensors", workers=0)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_the_state_of_another_run_is_refused(camvid_root, tmp_path):
    out = tmp_path / "net.safetensors"
    out.with_name("net.safetensors.state").write_bytes(b"")
    with pytest.raises(ArtifactError, match="is not a training state"):
        train(RUN, open_camvid(camvid_root, "train"), out, workers=0)
    torch.save({"run": "another"}, out.with_name("net.safetensors.state"))
    with pytest.raises(ArtifactError, match="belongs to a run with other settings"):
        train(RUN, open_camvid(camvid_root, "train"), out, workers=0)


def test_every_frame_is_drawn_once_per_epoch_and_shared_between_processes():
    drawn = []
    for rank in range(2):
        batches = EpochBatches(10, batch=4, seed=3, rank=rank, world=2)
        batches.epoch = 5
        drawn.append([index for batch in batches for _, index in batch])
        assert {epoch for batch in batches for epoch, _ in batch} == {5}
    assert len(drawn[0]) == len(drawn[1]) == 4
    assert len({*drawn[0], *drawn[1]}) == 8


def test_epochs_differ_and_repeat():
    orders = []
    for epoch in (0, 1, 0):
        batches = EpochBatches(64, batch=8, seed=0)
        batches.epoch = epoch
        orders.append(list(batches))
    assert orders[0] == orders[2]
    indices = [[i for batch in order for _, i in batch] for order in orders]
    assert indices[0] != indices[1]
    assert sorted(indices[0]) == sorted(indices[1]) == list(range(64))


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(DataError, match="8 frames cannot be made of 5 frames"):
        EpochBatches(5, batch=8, seed=0)


@pytest.fixture
def small_nets(monkeypatch):
    """Lets `small_nets:plain` be found as a network from outside."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_a_batch_in_parts_gives_the_same_weights_without_batch_norm(tmp_path, small_nets):
    # Scales below 1 leave some crops with fewer labels than others.
    recipe = Recipe(Augmentation((48, 64), scale=(0.5, 1.2)), class_weights="log", epochs=3, batch=4, rate=0.05)
    data = open_data("scenes:count=8,size=64x96", "train")
    losses = {1: [], 2: [], 4: []}
    for parts, seen in losses.items():
        run = Run("small_nets:plain", (64, 96), dataclasses.replace(recipe, accumulate=parts), seed=2)
        out = tmp_path / f"{parts}.safetensors"
        train(run, data, out, workers=0, keep=True, watch=lambda step, loss, seen=seen: seen.append(loss))
    whole = weights_of(tmp_path / "1.safetensors")
    for parts in (2, 4):
        assert losses[parts] == pytest.approx(losses[1], abs=1e-5)
        for key, value in weights_of(tmp_path / f"{parts}.safetensors").items():
            assert torch.allclose(value, whole[key], atol=1e-5), key


def test_fixed_weights_of_other_classes_are_refused(camvid_root, tmp_path):
    run = dataclasses.replace(RUN, recipe=dataclasses.replace(RECIPE, class_weights="cityscapes"))
    with pytest.raises(UsageError, match=r"weighs the 19 classes of Cityscapes, but camvid:.* has 11 others"):
        train(run, open_camvid(camvid_root, "train"), tmp_path / "net.safetensors", workers=0)


def test_affinity_fields_and_edges_are_learned_and_resumed(tmp_path, small_nets):
    loss = Loss(edges="border", affinity=1.0)
    recipe = Recipe(Augmentation((32, 48)), loss, "cityscapes", epochs=3, batch=4, rate=0.05)
    run = Run("small_nets:branched", (64, 96), recipe, seed=2)
    data = open_data("scenes:count=4,size=64x96", "train")
    train(run, data, tmp_path / "whole.safetensors", workers=0)

    def interrupt(step, loss):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, data, tmp_path / "net.safetensors", workers=0, watch=interrupt)
    train(run, data, tmp_path / "net.safetensors", workers=0)
    assert (tmp_path / "net.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize(("precision", "seen"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_bfloat16_is_the_networks_arithmetic_alone(camvid_root, precision, seen):
    recipe = dataclasses.replace(RECIPE, precision=precision)
    session = Session.start(
        Run("fastscnn", (64, 96), recipe), open_camvid(camvid_root, "train"), Processes(0, 1, torch.device("cpu"))
    )
    given = []
    session.net.register_forward_hook(lambda _net, _inputs, outputs: given.append(outputs[0].dtype))
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    loss = session.objective(frames, torch.zeros(2, 64, 96, dtype=torch.long), 0.0)
    loss.backward()
    assert given == [seen]
    assert loss.dtype == torch.float32
    assert {value.grad.dtype for value in session.net.parameters() if value.grad is not None} == {torch.float32}


def test_a_network_learns_in_bfloat16(camvid_root, tmp_path):
    data, losses = open_camvid(camvid_root, "train"), []
    recipe = dataclasses.replace(RECIPE, epochs=10, precision="bfloat16")
    run = dataclasses.replace(RUN, recipe=recipe)
    train(run, data, tmp_path / "net.safetensors", workers=0, watch=lambda _step, loss: losses.append(loss))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
