import pytest
import torch
from torch import nn

from roadseg.train.models.pp_liteseg import SpatialFusion, channel_statistics


def test_statistics_run_over_the_channels():
    x = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    assert [statistic.item() for statistic in channel_statistics(x)] == [3.0, 6.0]


@pytest.mark.parametrize(("attention", "expected"), [(50.0, 3.0), (-50.0, 5.0), (0.0, 4.0)])
def test_the_fusion_weighs_detail_against_context(attention, expected):
    fusion = SpatialFusion(1, 1, 1).eval()
    fusion.detail = fusion.out = nn.Identity()
    nn.init.zeros_(fusion.attention[1][0].weight)
    nn.init.constant_(fusion.attention[1][1].bias, attention)
    fused = fusion(torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 2, 2), 5.0))
    assert fused.flatten().tolist() == pytest.approx([expected] * 16)
