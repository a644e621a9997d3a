import torch
from torch import nn

from roadseg.train.models.espnet import DilatedPyramid


def test_each_dilation_is_added_to_the_smaller_ones_but_the_smallest():
    pyramid = DilatedPyramid(1, 5, residual=False).eval()
    for i, branch in enumerate(pyramid.branches):  # a single pixel is seen by the middle of each kernel alone
        nn.init.constant_(branch.weight, 10.0**i)
    nn.init.ones_(pyramid.reduce.weight)
    y = pyramid(torch.ones(1, 1, 1, 1)).flatten() * (1 + 1e-3) ** 0.5
    torch.testing.assert_close(y, torch.tensor([1.0, 10, 110, 1110, 11110]))
