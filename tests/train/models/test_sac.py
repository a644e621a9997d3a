import torch
import torch.nn.functional as F

from roadseg.train.models.sac import ScaleAdaptiveConv


def test_it_starts_as_a_plain_convolution_and_learns_its_scales():
    x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    conv = ScaleAdaptiveConv(3, 4, dilation=2)
    y = conv(x)
    torch.testing.assert_close(y, F.conv2d(x, conv.weight, padding=2, dilation=2))
    y.square().sum().backward()
    assert conv.scale.bias.grad.abs() > 0
    assert conv.scale.weight.grad.abs().min() > 0
