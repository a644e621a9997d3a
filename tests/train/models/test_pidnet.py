import pytest
import torch
from torch import nn

from roadseg.train.models.outputs import Outputs
from roadseg.train.models.pidnet import BoundaryFusion, PIDNet, PixelGuide


def passing_through(net):
    """The network with convolutions that give the sum of their input channels; batch norms are the identity."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    return net.eval()


def test_the_guide_takes_context_where_embeddings_agree_and_keeps_detail_where_they_oppose():
    guide = passing_through(PixelGuide(1, 1, 1))
    detail, context = torch.tensor([[[[20.0, -20.0]]]]), torch.full((1, 1, 1, 1), 10.0)
    assert guide(detail, context).flatten().tolist() == pytest.approx([10, -20], abs=1e-3)


def test_the_fusion_doubles_detail_on_a_boundary_and_context_off_it():
    fusion = passing_through(BoundaryFusion(1))
    detail, context = torch.full((1, 1, 1, 2), 3.0), torch.full((1, 1, 1, 2), 5.0)
    boundary = torch.tensor([[[[50.0, -50.0]]]])
    assert fusion(detail, context, boundary).flatten().tolist() == pytest.approx([3 + 5 + 3, 5 + 3 + 5], abs=1e-3)


def test_training_gives_boundaries_beside_the_class_logits():
    outputs = PIDNet(classes=4).train()(torch.randn(2, 3, 64, 72))
    assert isinstance(outputs, Outputs)
    assert [tuple(x.shape) for x in outputs.logits] == [(2, 4, 8, 9)] * 2
    assert [tuple(x.shape) for x in outputs.edges] == [(2, 1, 8, 9)]
