import pytest
import torch
import torch.nn.functional as F

from roadseg.train.models.sac import ScaleAdaptiveConv, scale_adaptive_conv


@pytest.fixture
def x():
    return torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weight():
    return torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [1, 2])
def test_one_whole_scale_everywhere_is_a_dilated_convolution(x, weight, scale):
    y = scale_adaptive_conv(x, weight, torch.full((2, 1, 7, 9), float(scale)), dilation=2)
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=2 * scale, dilation=2 * scale))


def test_each_place_sums_taps_at_its_own_distance(x, weight):
    scales = 0.3 + torch.rand(2, 1, 7, 9, generator=torch.Generator().manual_seed(2)) * 2
    y = scale_adaptive_conv(x, weight, scales, dilation=2)
    for n, p, q in ((0, 0, 0), (0, 3, 4), (1, 6, 8), (1, 2, 7)):
        reach = 2 * float(scales[n, 0, p, q])
        expected = sum(
            weight[:, :, i, j] @ bilinear(x[n], p + (i - 1) * reach, q + (j - 1) * reach)
            for i in range(3)
            for j in range(3)
        )
        torch.testing.assert_close(y[n, :, p, q], expected, rtol=1e-4, atol=1e-4)


def bilinear(image, row, column):
    """`(C, h, w)` between its places, by hats of width one; zero beyond the border."""
    rows, columns = (torch.arange(n) for n in image.shape[1:])
    hats = (1 - (rows - row).abs()).clamp(min=0)[:, None] * (1 - (columns - column).abs()).clamp(min=0)
    return (image * hats).sum(dim=(1, 2))


def test_it_starts_as_a_plain_convolution_and_learns_its_scales(x):
    conv = ScaleAdaptiveConv(3, 4, dilation=2)
    y = conv(x)
    torch.testing.assert_close(y, F.conv2d(x, conv.weight, padding=2, dilation=2))
    y.square().sum().backward()
    assert conv.scale.bias.grad.abs() > 0
    assert conv.scale.weight.grad.abs().min() > 0
