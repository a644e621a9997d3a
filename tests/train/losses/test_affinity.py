import math

import pytest
import torch

from roadseg.train.losses import KernelWeights, affinity_loss
from roadseg.train.losses.affinity import reach_loss


def clipped(x):
    return min(max(x, 1e-4), 1.0)


def kl(q, p):
    """Of two Bernoulli distributions, clipped as the authors do."""
    return clipped(q) * math.log(clipped(q) / clipped(p)) + clipped(1 - q) * math.log(
        clipped(1 - q) / clipped(1 - p)
    )


def by_loop(probabilities, labels, reach, edge, inner):
    """The loss of one reach, pair by pair and class by class."""
    frames, classes, rows, columns = probabilities.shape
    across, within = [], []
    for n in range(frames):
        for y in range(rows):
            for x in range(columns):
                for v, u in ((y + dy * reach, x + dx * reach) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                    if (v, u) == (y, x) or not (0 <= v < rows and 0 <= u < columns):
                        continue
                    own, other = labels[n, y, x].item(), labels[n, v, u].item()
                    if 255 in (own, other):
                        continue
                    for c in range(classes):
                        d = kl(probabilities[n, c, v, u].item(), probabilities[n, c, y, x].item())
                        if (own == c) != (other == c):
                            across.append(edge[own].item() * max(0.0, 3.0 - d))
                        else:
                            within.append(inner[own].item() * d)
    return sum(across) / len(across) + sum(within) / len(within)


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, 3, 5, 6, generator=generator)
    labels = torch.randint(0, 3, (2, 5, 6), generator=generator)
    labels[0, 1:3, 2] = 255
    return logits, labels


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_a_reach_compares_every_pair_that_far_apart(scene, reach):
    logits, labels = scene
    edge, inner = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.1, 0.3, 0.8])
    p = logits.softmax(1)
    assert reach_loss(p, labels, reach, edge, inner) == pytest.approx(
        by_loop(p, labels, reach, edge, inner), rel=1e-4
    )


def test_the_reaches_add_up_each_with_its_share_and_labels_come_to_the_size_of_the_logits(scene):
    logits, labels = scene
    third = torch.full((3,), 1 / 3)
    expected = sum(by_loop(logits.softmax(1), labels, reach, third, third) for reach in (1, 2, 3))
    large = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert affinity_loss(logits, large) == pytest.approx(expected, rel=1e-4)
    assert affinity_loss(logits, labels, KernelWeights(3)()).item() == pytest.approx(expected, rel=1e-4)


def test_agreement_within_a_class_and_a_clear_difference_across_cost_nothing():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[..., 4:] = 1
    logits = torch.where(labels == 0, 20.0, -20.0)[:, None] * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    assert affinity_loss(logits, labels) == pytest.approx(0, abs=1e-4)
    assert affinity_loss(-0 * logits, labels) == pytest.approx(
        3.0, rel=1e-5
    )  # no pair differs: the margin, thirds of


def test_a_step_down_the_gradient_makes_the_weights_choose_the_worst_reach(scene):
    logits, labels = scene
    weights = KernelWeights(3)
    before = affinity_loss(logits, labels, weights())
    before.backward()
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter -= 0.1 * parameter.grad
    assert affinity_loss(logits, labels, weights()) > before
    assert weights()[0].sum(1).tolist() == pytest.approx([1, 1, 1])
