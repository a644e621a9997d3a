import pytest
import torch

from roadseg.train.models import Outputs, build
from roadseg.train.models.msfnet import spatial_aware_pool


def test_a_pool_averages_twice_its_stride_and_one():
    x = torch.arange(16.0).view(1, 1, 1, 16)
    # Windows of 5 around every second column; of their 5 rows, all but one are padding.
    assert spatial_aware_pool(x, 2).flatten()[1:7].tolist() == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.4])
    assert spatial_aware_pool(x, 1) is x


def test_boundaries_come_beside_the_classes_in_training_alone():
    outputs = build("msfnet", 4, aux=True).train()(torch.randn(2, 3, 128, 256))
    assert isinstance(outputs, Outputs)
    assert [x.shape for x in outputs.logits] == [(2, 4, 16, 32)]
    assert [x.shape for x in outputs.edges] == [(2, 1, 16, 32)]
    assert build("msfnet", 4, aux=True).eval()(torch.randn(1, 3, 128, 128)).shape == (1, 4, 16, 16)
