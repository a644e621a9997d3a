import pytest
import torch

from roadseg.train.losses import ohem


def logits_with_losses(losses):
    """Two-class logits (1, 2, 1, n) whose cross-entropy against class 0 is `losses`."""
    p = torch.exp(-torch.tensor(losses))
    return torch.stack([torch.log(p), torch.log1p(-p)])[None, :, None, :]


def zeros(n):
    return torch.zeros(1, 1, n, dtype=torch.long)


def test_the_pixels_above_the_threshold_are_averaged():
    losses = [0.01, 0.1, 0.5, 1.0, 2.0]  # -log(0.7) is 0.357
    loss = ohem(logits_with_losses(losses), zeros(5), None, 0.7, 1 / 16)
    assert loss == pytest.approx((0.5 + 1.0 + 2.0) / 3, rel=1e-4)


def test_a_share_is_kept_when_all_is_easy():
    losses = [0.01, 0.02, 0.03, 0.04]
    assert ohem(logits_with_losses(losses), zeros(4), None, 0.7, 0.5) == pytest.approx(0.035, rel=1e-3)


def test_so_many_pixels_are_kept_when_all_is_easy():
    losses = [0.01, 0.02, 0.03, 0.04]
    assert ohem(logits_with_losses(losses), zeros(4), None, 0.7, min_kept=3) == pytest.approx(0.03, rel=1e-3)


def test_so_many_pixels_are_meant_per_frame():
    logits = logits_with_losses([0.01, 0.02, 0.03, 0.04]).view(1, 2, 2, 2).transpose(0, 2).reshape(2, 2, 1, 2)
    assert ohem(logits, torch.zeros(2, 1, 2, dtype=torch.long), None, 0.7, min_kept=1) == pytest.approx(
        0.035, rel=1e-3
    )


def test_more_than_there_are_cannot_be_kept():
    losses = [0.01, 0.02, 0.04]
    labels = zeros(3)
    labels[..., 2] = 255
    assert ohem(logits_with_losses(losses), labels, None, 0.7, min_kept=100) == pytest.approx(0.015, rel=1e-3)


def test_weights_of_classes_count_in_the_mean_but_do_not_choose():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).T.view(1, 2, 1, 3)
    labels = torch.tensor([[[0, 0, 1]]])
    easy, middle, hard = torch.log1p(torch.exp(torch.tensor([-2.0, 0.0, 1.0]))).tolist()
    assert easy < 0.357 < middle < hard
    loss = ohem(logits, labels, torch.tensor([1.0, 3.0]), 0.7)
    assert loss == pytest.approx((middle + 3 * hard) / 4, rel=1e-5)
