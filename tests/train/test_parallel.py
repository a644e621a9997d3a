import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from roadseg.train import load_checkpoint
from roadseg.train.parallel import PooledBatchNorm, kth_largest, pool_batch_norms, pooled_mean

PROGRAM = Path(__file__).parent / "train_together.py"
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE"}
"""One thread, and matrix products that round alike on every CPU."""


def start(out, *before, pause=0.0):
    command = [sys.executable, *before, str(PROGRAM), str(out), str(pause)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def finish(process):
    """What the processes said, once they came to a good end."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    return said


def losses_of(out):
    return [float(line.split()[1]) for line in out.with_suffix(".losses").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The checkpoint of two processes that nobody disturbed, and what they said."""
    out = tmp_path_factory.mktemp("together") / "net.safetensors"
    return out, finish(start(out, *TOGETHER))


@pytest.mark.slow
def test_two_processes_lose_what_one_with_the_whole_batch_does(undisturbed, tmp_path):
    together, _ = undisturbed
    alone = tmp_path / "alone.safetensors"
    finish(start(alone))
    first, second = losses_of(alone), losses_of(together)
    assert len(first) == len(second) == 30
    assert first[-1] < first[0]
    assert second == pytest.approx(first, abs=1e-4)
    weights = load_checkpoint(together).weights
    for key, value in load_checkpoint(alone).weights.items():
        assert torch.allclose(weights[key].float(), value.float(), atol=1e-4), key


def test_only_the_first_process_speaks(undisturbed):
    _, said = undisturbed
    assert [said.count(f"epoch {epoch} of 15: loss") for epoch in (1, 15)] == [1, 1]


def wait_for(path, lines, process):
    """Until the file has so many lines."""
    deadline = time.monotonic() + 240
    while not path.is_file() or path.read_text().count("\n") < lines:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_what_loses_a_worker_and_then_everything_goes_on_to_the_same_bytes(undisturbed, tmp_path):
    out = tmp_path / "net.safetensors"
    losses, state = out.with_suffix(".losses"), out.with_name("net.safetensors.state")
    pids = [out.with_suffix(f".{rank}.pid") for rank in range(2)]

    process = start(out, *TOGETHER, "--max-restarts=1", pause=0.2)
    wait_for(losses, 3, process)  # in the second epoch: each has two steps
    os.kill(int(pids[1].read_text()), signal.SIGKILL)
    wait_for(losses, len(losses_of(out)) + 5, process)  # torchrun has started both again

    process.kill()
    for pid in pids:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert process.communicate()[1].count("going on from epoch") == 1
    assert state.is_file()
    assert not out.exists()

    assert finish(start(out, *TOGETHER)).count("going on from epoch") == 1
    assert not state.exists()
    assert out.read_bytes() == undisturbed[0].read_bytes()


def test_a_pooled_batch_norm_of_one_process_is_batch_norm():
    torch.manual_seed(0)
    ours, theirs = nn.Sequential(nn.BatchNorm2d(3)), nn.Sequential(nn.BatchNorm2d(3))
    pool_batch_norms(ours)
    assert isinstance(ours[0], PooledBatchNorm)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(2):
        x = 3 * torch.randn(2, 3, 4, 5) + 1
        ours_in, theirs_in = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = ours(ours_in), theirs(theirs_in)
        (y**3).sum().backward()
        (z**3).sum().backward()
        assert torch.allclose(y, z, atol=1e-5)
        assert torch.allclose(ours_in.grad, theirs_in.grad, atol=1e-3)
    for key, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], value), key
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


def test_a_mean_without_weight_is_zero():
    assert pooled_mean(torch.tensor(0.0), torch.tensor(0)) == 0
    assert pooled_mean(torch.tensor(3.0), torch.tensor(4)) == 0.75


def test_the_kth_largest_counts_from_one():
    assert kth_largest(torch.tensor([3.0, 1.0, 2.0]), 2) == 2
