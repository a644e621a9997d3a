"""A network nobody has seen, a data set of its own, and the command to run on them."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

from roadseg.cli import main

STRANGER = '''
"""Forty lines that the project has never seen."""

import torch
import torch.nn.functional as F
from torch import nn


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 4, 1)
        self.fc2 = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        s = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.fc2(F.hardswish(self.fc1(s))))


class Stranger(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.GroupNorm(4, 16), nn.PReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.dw = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=32)
        self.squeeze = Squeeze(32)
        self.context = nn.Conv2d(32, 32, 1)
        self.up = nn.ConvTranspose2d(64, 16, 2, 2)
        self.head = nn.Conv2d(32, 3, 1)

    def forward(self, x):
        stem = self.stem(x)
        y = self.down(stem)
        y = y + self.squeeze(self.dw(y))
        pooled = self.context(F.adaptive_avg_pool2d(y, (3, 5)))
        y = torch.cat([y, F.interpolate(pooled, y.shape[2:], mode="bilinear", align_corners=False)], 1)
        return {"out": self.head(torch.cat([self.up(y), stem], 1))}


def make():
    return Stranger()
'''

SPEC = """
classes = ["road", "car", "sky"]
channels = "bgr"
mean = [0.4, 0.45, 0.5]
std = [0.2, 0.2, 0.25]
align_corners = false
"""

TRAIN = """
    import sys, torch
    sys.path.insert(0, sys.argv[1])
    import stranger
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = stranger.make().train()
    for _ in range(3):
        net(torch.randn(4, 3, 64, 96))
    torch.save(net.state_dict(), sys.argv[1] + "/net.pth")
"""


@pytest.fixture(scope="session")
def stranger(tmp_path_factory) -> Path:
    """A folder with stranger.py, net.pth, spec.toml and, in data/, 12 and 6 labelled frames of 64x96."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "stranger.py").write_text(STRANGER)
    (folder / "spec.toml").write_text(SPEC)
    subprocess.run([sys.executable, "-c", textwrap.dedent(TRAIN), str(folder)], check=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for kind in ("images", "labels"):
            (folder / "data" / split / kind).mkdir(parents=True)
        for i in range(count):
            noise = cv2.resize(rng.integers(0, 255, (8, 12, 3), np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / "data" / split / "images" / f"{i}.png"), noise)
            cv2.imwrite(str(folder / "data" / split / "labels" / f"{i}.png"), noise[..., 0] // 86)
    (folder / "data" / "classes.txt").write_text("road\ncar\nsky\n")
    return folder


class Answer:
    """What a command left behind."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def roadseg(monkeypatch, capsys):
    """Run the command in this process; returns its exit code and what it printed."""

    def run(*arguments) -> Answer:
        monkeypatch.setattr(sys, "argv", ["roadseg", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run
