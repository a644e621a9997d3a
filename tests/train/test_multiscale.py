import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from roadseg.runtime import ModelSpec, UsageError, evaluate
from roadseg.runtime.backends.torch import TorchBackend
from roadseg.train import find_checkpoint, open_data, open_multiscale
from roadseg.train.models.architecture import Sizes
from roadseg.train.multiscale import MultiScale, parse_scales

SPEC = ModelSpec("tiny", 24, 36, ("a", "b", "c"), align_corners=False)


@pytest.fixture
def net():
    """Logits at a half, of what is near and what lies to the right."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 3, 1, 1)).eval()


@pytest.fixture
def frames():
    small = np.random.default_rng(0).integers(0, 255, (2, 6, 9, 3), np.uint8)
    return np.stack([cv2.resize(frame, (36, 24)) for frame in small])


def test_scale_one_is_plain_evaluation(net, frames):
    assert (MultiScale(net, SPEC, (1.0,))(frames) == TorchBackend(net, SPEC)(frames)).all()


def test_probabilities_of_all_scales_and_of_the_mirrored_frame_are_averaged(net, frames):
    sums = np.zeros((24, 36, 3))
    for rows, columns in ((12, 18), (24, 36), (36, 54)):
        for mirrored in (False, True):
            frame = frames[0, :, ::-1] if mirrored else frames[0]
            image = ((frame / 255 - SPEC.mean) / SPEC.std).astype(np.float32)
            image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
            with torch.no_grad():
                logits = net(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
            exponents = np.exp(cv2.resize(logits, (36, 24), interpolation=cv2.INTER_LINEAR))
            probabilities = exponents / exponents.sum(axis=2, keepdims=True)
            sums += probabilities[:, ::-1] if mirrored else probabilities
    labels = MultiScale(net, SPEC, (0.5, 1.0, 1.5), flip=True)(frames[:1])[0]
    margin = np.diff(np.sort(sums, axis=2)[..., 1:], axis=2)[..., 0]
    assert (labels == sums.argmax(axis=2))[margin > 1e-4].all()
    assert (margin > 1e-4).mean() > 0.99
    assert (labels != TorchBackend(net, SPEC)(frames[:1])[0]).any()


def test_a_mirrored_frame_has_mirrored_labels(net, frames):
    both = MultiScale(net, SPEC, (0.75, 1.0, 1.25), flip=True)
    assert (both(frames[:, :, ::-1]) == both(frames)[:, :, ::-1]).all()
    plain = MultiScale(net, SPEC, (1.0,))
    assert (plain(frames[:, :, ::-1]) != plain(frames)[:, :, ::-1]).any()


def test_a_network_sees_only_sizes_that_it_takes(frames):
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape[2:]))
            return x

    MultiScale(Watching(), SPEC, (0.5, 1.0, 2.0), sizes=Sizes(8, 1))(frames)
    assert seen == [(9, 17), (25, 33), (49, 73)]


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("nan"),)])
def test_scales_that_cannot_be_meant_are_refused(net, scales):
    with pytest.raises(UsageError, match="scales are positive numbers"):
        MultiScale(net, SPEC, scales)
    with pytest.raises(UsageError, match="got '1,x'"):
        parse_scales("1,x")


def test_a_shipped_checkpoint_is_evaluated_at_several_scales_from_python_and_the_command_line():
    segmenter = open_multiscale(find_checkpoint("scenes"), (0.75, 1.0), flip=True, size=(128, 256))
    ours = evaluate(segmenter, open_data("scenes:count=2,size=128x256", "val"))
    assert ours.backend.endswith("scales 0.75,1, mirrored too")
    command = "evaluate scenes --data scenes:count=2,size=128x256 --size 128x256 --scales 0.75,1 --flip --json"
    done = subprocess.run([sys.executable, "-m", "roadseg", *command.split()], check=True, capture_output=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(ours.as_json()))


def test_other_models_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    command = ["evaluate", str(tmp_path / "m.onnx"), "--data", "scenes:count=1", "--flip"]
    done = subprocess.run([sys.executable, "-m", "roadseg", *command], capture_output=True, text=True)
    assert done.returncode == 2
    assert "only a checkpoint can be evaluated at several scales or mirrored" in done.stderr
