import pytest
import torch
import torch.nn.functional as F

from roadseg.runtime.labels import CITYSCAPES
from roadseg.train.models import build
from roadseg.train.models.dsspn import CITYSCAPES_CATEGORIES, Neurons

SKY, PERSON, RIDER = (CITYSCAPES.classes.index(name) for name in ("sky", "person", "rider"))
HUMAN = 4
"""Of the categories with more than one class, the place of the one with person and rider."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build("dsspn_r101", 19)


def test_the_tree_holds_the_classes_in_the_order_of_train_ids(net):
    first = [sum(CITYSCAPES_CATEGORIES[:i]) for i in range(len(CITYSCAPES_CATEGORIES))]
    assert [CITYSCAPES.classes[i] for i in first] == [
        "road", "building", "pole", "vegetation", "sky", "person", "car"
    ]  # fmt: skip
    assert len(net.inner.predict) == 6  # the sky has no classes to tell apart


@torch.no_grad()
@pytest.mark.parametrize("classes", [19, 11])
def test_the_probabilities_of_all_classes_sum_to_one(classes):
    logits = build("dsspn_r101", classes).eval()(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(1, 8, 8))


def test_a_neuron_learns_at_pixels_of_its_concept_alone(net):
    net.train()(torch.randn(2, 3, 64, 64))
    for label, learns in ((SKY, False), (RIDER, True)):
        net.zero_grad(set_to_none=False)
        F.cross_entropy(net(torch.randn(2, 3, 64, 64)), torch.full((2, 8, 8), label)).backward()
        assert bool(net.inner.predict[HUMAN].weight.grad.abs().max() > 1e-7) is learns
        assert net.root.predict[0].weight.grad.abs().max() > 0


def test_neurons_side_by_side_do_not_see_each_other():
    neurons = Neurons(5, [2, 3]).eval()
    x = torch.randn(1, 5, 4, 4)
    before = neurons(x)[1]
    with torch.no_grad():
        neurons.evolve[1][0].weight[48:] += 1  # of the second
    after = neurons(x)[1]
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
