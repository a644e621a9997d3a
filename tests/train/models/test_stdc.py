import pytest
import torch
from torch import nn

from roadseg.train.models.stdc import STDC2, DenseBlock, STDCNet, StridedBlock


def passing_through(block):
    """The block with 1x1 convolutions of ones and others that read the middle of each channel alike."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            middle = module.kernel_size[0] // 2
            module.weight.data[:, :, middle, middle] = 1 / module.weight.shape[1]
    return block.eval()


def test_a_dense_block_gives_half_a_quarter_and_two_eighths_of_its_channels():
    block = passing_through(DenseBlock(4, 16))
    assert [conv[0].out_channels for conv in (block.reduce, *block.grow)] == [8, 4, 2, 2]
    assert block(torch.full((1, 4, 3, 3), 2.0)).flatten().tolist() == pytest.approx([2.0] * 16 * 9, rel=1e-4)


@pytest.mark.parametrize(("counts_padding", "corner"), [(True, 4 / 9), (False, 1.0)])
def test_a_strided_block_pools_what_it_keeps(counts_padding, corner):
    block = passing_through(StridedBlock(4, 16, counts_padding))
    kept, went_on = block(torch.ones(1, 4, 4, 4)).split(8, dim=1)
    assert kept.shape == (1, 8, 2, 2)
    assert kept[0, 0, 0, 0].item() == pytest.approx(corner, rel=1e-4)
    assert went_on[0, 0, 0, 0].item() == pytest.approx(1, rel=1e-4)


def test_the_backbone_gives_the_ends_of_its_three_stages():
    maps = STDCNet(STDC2).eval()(torch.randn(1, 3, 64, 32))
    assert [tuple(x.shape[1:]) for x in maps] == [(256, 8, 4), (512, 4, 2), (1024, 2, 1)]
