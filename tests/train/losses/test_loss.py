import math

import pytest
import torch
import torch.nn.functional as F

from roadseg.runtime import UsageError
from roadseg.train.losses import (
    CITYSCAPES_WEIGHTS,
    KernelWeights,
    Loss,
    affinity_loss,
    border_loss,
    boundary_loss,
    cross_entropy,
    detail_loss,
    label_mass,
    log_class_weights,
    ohem,
)
from roadseg.train.models.outputs import Outputs


def maps(channels, *, count=1, seed=0):
    return list(torch.randn(count, 2, channels, 8, 8, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def labels():
    labels = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(1))
    labels[:, :3] = 255
    return labels


def upsampled(logits):
    return F.interpolate(logits, (16, 16), mode="bilinear", align_corners=True)


def test_ignored_pixels_do_not_count():
    logits = torch.randn(1, 3, 4, 4)
    labels = torch.randint(0, 3, (1, 4, 4))
    masked = labels.clone()
    masked[:, :2] = 255
    loss = Loss()([logits], masked, None, align_corners=True)
    assert loss == pytest.approx(F.cross_entropy(logits[:, :, 2:], labels[:, 2:]).item(), rel=1e-6)


def test_a_class_weighs_what_its_weight_says(labels):
    weights = torch.tensor([1.0, 2.0, 5.0])
    logits = upsampled(maps(3)[0])
    expected = F.cross_entropy(logits, labels, weights, ignore_index=255)
    assert cross_entropy(logits, labels, weights) == pytest.approx(expected.item(), rel=1e-6)
    assert label_mass(labels, weights) == sum(weights[labels[labels == i]].sum() for i in range(3))
    assert label_mass(labels) == 2 * 13 * 16


@pytest.mark.parametrize("kind", ["ce", "ohem"])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(kind):
    (logits,) = maps(3)
    logits.requires_grad_()
    loss = Loss(kind)([logits], torch.full((2, 16, 16), 255), None, True)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_auxiliary_logits_weigh_what_the_loss_says(labels):
    outputs = maps(3, count=3)
    main, first, second = (cross_entropy(upsampled(logits), labels).item() for logits in outputs)
    assert Loss(aux_weight=0.4)(outputs, labels, None, True) == pytest.approx(
        main + 0.4 * (first + second), rel=1e-6
    )
    each = Loss(aux_weight=(0.3, 2.0))(outputs, labels, None, True)
    assert each == pytest.approx(main + 0.3 * first + 2 * second, rel=1e-6)


def test_auxiliary_logits_can_have_the_plain_loss(labels):
    main, aux = maps(3, count=2)
    loss = Loss("ohem", aux_weight=0.5, aux_kind="ce")([main, aux], labels, None, True)
    hard = ohem(upsampled(main), labels, None, 0.7, 1 / 16)
    assert loss == pytest.approx((hard + 0.5 * cross_entropy(upsampled(aux), labels)).item(), rel=1e-6)


@pytest.mark.parametrize(("edges", "measure"), [("border", border_loss), ("detail", detail_loss)])
def test_boundary_branches_add_their_own_loss(labels, edges, measure):
    branches = maps(1, count=2)
    main = maps(3)
    loss = Loss(edges=edges, edge_weight=0.1)(Outputs(main, branches), labels, None, True)
    expected = Loss()(main, labels, None, True) + 0.1 * sum(measure(upsampled(b), labels) for b in branches)
    assert loss == pytest.approx(expected.item(), rel=1e-6)


def test_a_sure_boundary_trains_the_classes_there_once_more(labels):
    main = maps(3)
    sure = torch.full((2, 1, 8, 8), -9.0)
    sure[:, :, :, :4] = 9.0
    loss = Loss(edges="boundary", edge_weight=20)(Outputs(main, [sure]), labels, None, True)
    there = labels.clone()
    there[upsampled(sure)[:, 0].sigmoid() <= 0.8] = 255
    logits = upsampled(main[0])
    expected = (
        cross_entropy(logits, labels) + cross_entropy(logits, there) + 20 * boundary_loss(upsampled(sure), labels)
    )
    assert loss == pytest.approx(expected.item(), rel=1e-6)


def test_affinity_fields_are_on_the_main_logits_and_fade_to_a_tenth(labels):
    main, aux = maps(3, count=2)
    plain = Loss()([main, aux], labels, None, True)
    loss = Loss(affinity=2.0)
    fields = affinity_loss(main, labels)
    for progress, share in ((0.0, 1.0), (0.5, 0.1**0.5), (1.0, 0.1)):
        value = loss([main, aux], labels, None, True, KernelWeights(3), progress)
        assert value.item() == pytest.approx((plain + 2 * share * fields).item(), rel=1e-6)


def test_a_stride_takes_every_such_row_and_column(labels):
    logits = maps(3)
    loss = Loss(stride=2)
    assert loss(logits, labels, None, True) == pytest.approx(
        Loss()(logits, labels[:, ::2, ::2], None, True).item()
    )
    assert loss.mass(labels, None) == label_mass(labels[:, ::2, ::2])


def test_a_loss_that_does_not_fit_the_network_is_refused(labels):
    main, aux = maps(3, count=2)
    with pytest.raises(UsageError, match=r"weighs \(1.0, 1.0\) auxiliary heads, but the network has 1"):
        Loss(aux_weight=(1.0, 1.0))([main, aux], labels, None, True)
    with pytest.raises(UsageError, match="the network has none"):
        Loss(edges="detail")([main], labels, None, True)
    with pytest.raises(UsageError, match="which edges they learn: border, boundary, detail"):
        Loss()(Outputs([main], maps(1)), labels, None, True)


def test_rare_classes_weigh_more_and_the_mean_is_one():
    weights = log_class_weights(torch.tensor([0.9, 0.1]) * 1000)
    by_hand = [1 / math.log(1.92), 1 / math.log(1.12)]
    assert weights.tolist() == pytest.approx([2 * w / sum(by_hand) for w in by_hand], rel=1e-5)


def test_the_fixed_weights_are_one_for_each_class_and_average_to_about_one():
    assert len(CITYSCAPES_WEIGHTS) == 19
    assert sum(CITYSCAPES_WEIGHTS) / 19 == pytest.approx(1, abs=0.01)
