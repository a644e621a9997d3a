import pytest
import torch

from roadseg.train.models.swiftnet import SpatialPyramid


@pytest.mark.parametrize(
    ("size", "cells"),
    [
        ((8, 8), [(8, 8), (4, 4), (2, 2)]),
        ((8, 16), [(8, 16), (4, 8), (2, 4)]),
        ((16, 8), [(8, 4), (4, 2), (2, 1)]),
    ],
)
def test_cells_are_square_whatever_the_shape_of_the_map(size, cells):
    pyramid, seen = SpatialPyramid(4, 6).eval(), []
    for level in pyramid.levels:
        level.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[2:])))
    assert pyramid(torch.randn(1, 4, *size)).shape == (1, 6, *size)
    assert seen == cells
