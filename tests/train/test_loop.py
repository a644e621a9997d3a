import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from roadseg.runtime import ArtifactError, DataError, Segmenter, evaluate
from roadseg.train import Augmentation, Loss, Recipe, Run, load_checkpoint, train
from roadseg.train.batches import EpochBatches
from roadseg.train.data import open_camvid
from roadseg.train.loop import poly_schedule

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
    run = Run("fastscnn", (64, 96), Recipe(RECIPE.augmentation, epochs=30, batch=4, optimizer="adamw", rate=5e-3))
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


def test_the_rate_rises_and_falls():
    factor = poly_schedule(Recipe(RECIPE.augmentation, warmup=0.1, power=1.0), steps=100)
    rates = [factor(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert factor(100) == 0
    assert np.all(np.diff(rates[10:]) < 0)
