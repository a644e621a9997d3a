"""A tiny road, as files: sky above, road below, a car in the middle."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

SKY, ROAD, CAR = 0, 3, 8


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small run faster on one thread, above all beside others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def camvid_root(tmp_path: Path) -> Path:
    """CamVid's layout with 8 training and 4 validation frames of 64x96."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
        for i in range(count):
            labels = np.full((64, 96), SKY, np.uint8)
            labels[30:] = ROAD
            left = int(rng.integers(0, 70))
            labels[34:50, left : left + 24] = CAR
            labels[:, :2] = 11
            colours = {SKY: (200, 150, 90), ROAD: (90, 90, 90), CAR: (40, 40, 200), 11: (0, 0, 0)}
            frame = np.zeros((64, 96, 3), np.uint8)
            for label, colour in colours.items():
                frame[labels == label] = colour
            frame = np.clip(frame + rng.normal(0, 8, frame.shape), 0, 255).astype(np.uint8)
            name = f"{'AB'[i % 2]}_{i:03}.png"
            cv2.imwrite(str(tmp_path / split / name), frame)
            cv2.imwrite(str(tmp_path / f"{split}annot" / name), labels)
    return tmp_path
