import math

import pytest
import torch
import torch.nn.functional as F

from roadseg.train.losses import Loss, log_class_weights, ohem


def logits_with_losses(losses):
    """Two-class logits (1, 2, 1, n) whose cross-entropy against class 0 is `losses`."""
    p = torch.exp(-torch.tensor(losses))
    return torch.stack([torch.log(p), torch.log1p(-p)])[None, :, None, :]


def test_ignored_pixels_do_not_count():
    logits = torch.randn(1, 3, 4, 4)
    labels = torch.randint(0, 3, (1, 4, 4))
    masked = labels.clone()
    masked[:, :2] = 255
    loss = Loss()([logits], masked, None, align_corners=True)
    assert loss == pytest.approx(F.cross_entropy(logits[:, :, 2:], labels[:, 2:]).item(), rel=1e-6)


def test_auxiliary_logits_weigh_what_the_loss_says():
    main, aux = torch.randn(2, 1, 3, 2, 2)
    labels = torch.randint(0, 3, (1, 8, 8))
    one = Loss(aux_weight=0.4)
    assert one([main, aux], labels, None, True) == pytest.approx(
        (one([main], labels, None, True) + 0.4 * one([aux], labels, None, True)).item(), rel=1e-6
    )


def test_ohem_averages_the_pixels_above_the_threshold():
    losses = [0.01, 0.1, 0.5, 1.0, 2.0]  # -log(0.7) is 0.357
    loss = ohem(logits_with_losses(losses), torch.zeros(1, 1, 5, dtype=torch.long), None, 0.7, 1 / 16)
    assert loss == pytest.approx((0.5 + 1.0 + 2.0) / 3, rel=1e-4)


def test_ohem_keeps_its_share_when_all_is_easy():
    losses = [0.01, 0.02, 0.03, 0.04]
    loss = ohem(logits_with_losses(losses), torch.zeros(1, 1, 4, dtype=torch.long), None, 0.7, 0.5)
    assert loss == pytest.approx(0.035, rel=1e-3)


def test_ohem_of_an_unlabelled_batch_is_zero():
    labels = torch.full((1, 1, 2), 255)
    assert ohem(logits_with_losses([1.0, 2.0]), labels, None, 0.7, 0.5) == 0


def test_rare_classes_weigh_more_and_the_mean_is_one():
    weights = log_class_weights(torch.tensor([0.9, 0.1]) * 1000)
    by_hand = [1 / math.log(1.92), 1 / math.log(1.12)]
    assert weights.tolist() == pytest.approx([2 * w / sum(by_hand) for w in by_hand], rel=1e-5)
