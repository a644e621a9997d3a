from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import MODULATED_DEFORM_CONV, SCALE_ADAPTIVE_CONV
from roadseg.runtime import ModelSpec, UsageError

TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3}


def random_call(seed, n, channels, outputs, size, dtype, dilation):
    """Arguments with scales of 1 here and there, and others that move taps past every border."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, *size, generator=generator)
    scales = torch.randn(n, 1, *size, generator=generator).exp()
    scales = torch.where(scales > 2, torch.ones(()), scales)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator)
    return (*(t.to(dtype) for t in (x, scales, weight)), dilation)


@st.composite
def calls(draw):
    size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    n, channels = draw(st.sampled_from([1, 1, 1, 2, 3, 4])), draw(st.sampled_from([1, 2, 3, 5, 7, 16, 17]))
    dtype = draw(st.sampled_from(list(TOLERANCES)))
    outputs, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    return random_call(draw(st.integers(0, 2**31)), n, channels, outputs, size, dtype, dilation)


def difference(y, expected):
    """Largest, relative to the largest magnitude that is expected."""
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    return float((y.double() - expected.double()).abs().max() / expected.double().abs().max())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(calls())
def test_all_faces_agree(answer_of_function, call):
    expected = SCALE_ADAPTIVE_CONV(*call)
    assert expected.dtype == call[0].dtype
    assert difference(answer_of_function(SCALE_ADAPTIVE_CONV, *call), expected) < TOLERANCES[expected.dtype]
    assert difference(SCALE_ADAPTIVE_CONV.kernel(*call), expected) < TOLERANCES[expected.dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_more_channels_outputs_and_places_than_a_block(answer_of_function, dtype):
    call = random_call(0, 1, 18, 65 if dtype == torch.float32 else 129, (7, 10), dtype, 2)
    expected = SCALE_ADAPTIVE_CONV(*call)
    assert difference(answer_of_function(SCALE_ADAPTIVE_CONV, *call), expected) < TOLERANCES[dtype]
    assert difference(SCALE_ADAPTIVE_CONV.kernel(*call), expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("dilation", [1, 4])
def test_each_place_sums_taps_at_its_own_distance(dilation):
    x, scales, weight, _ = random_call(0, 2, 6, 5, (7, 9), torch.float64, dilation)
    y = SCALE_ADAPTIVE_CONV(x, scales, weight, dilation)
    for n, p, q in product(range(2), range(7), range(9)):
        reach = dilation * float(scales[n, 0, p, q])
        seen = [between(x[n], p + i * reach, q + j * reach) for i, j in product((-1, 0, 1), repeat=2)]
        torch.testing.assert_close(y[n, :, p, q], weight.flatten(1) @ torch.stack(seen, dim=1).flatten())


def between(image, row, column):
    """`(C, h, w)` between its places, by hats of width one; zero beyond the border."""
    rows, columns = (torch.arange(n, dtype=image.dtype) for n in image.shape[1:])
    hats = (1 - (rows - row).abs()).clamp(min=0)[:, None] * (1 - (columns - column).abs()).clamp(min=0)
    return (image * hats).sum(dim=(1, 2))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_one_whole_scale_makes_it_a_dilated_convolution(scale):
    x, scales, weight, _ = random_call(0, 2, 6, 5, (9, 13), torch.float32, 2)
    y = SCALE_ADAPTIVE_CONV(x, torch.full_like(scales, scale), weight, 2)
    assert difference(y, F.conv2d(x, weight, None, 1, 2 * scale, 2 * scale)) < 2e-6


def test_half_a_scale_sees_halfway_to_the_neighbours():
    x = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    scales = torch.tensor([[[[0.5, 0.5, 1.5]]]])
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1] = torch.tensor([1.0, 10.0, 100.0])
    # Half of 1 stands on the border before the first; the last sees between 1 and 2, and nothing behind it.
    expected = [[[[0.5 + 10 + 150, 1.5 + 20 + 300, 1.5 + 40 + 0]]]]
    assert SCALE_ADAPTIVE_CONV(x, scales, weight, 1).tolist() == expected
    assert SCALE_ADAPTIVE_CONV.kernel(x, scales, weight, 1).tolist() == expected


def test_it_is_a_deformable_convolution_whose_offsets_follow_the_scale():
    x, scales, weight, dilation = random_call(0, 2, 6, 5, (7, 8), torch.float64, 2)
    taps = torch.tensor([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]).reshape(1, 18, 1, 1)
    offset = (scales - 1) * dilation * taps
    expected = MODULATED_DEFORM_CONV(
        x, offset, torch.ones_like(offset[:, :9]), weight, 1, dilation, dilation, 1, 1
    )
    assert difference(SCALE_ADAPTIVE_CONV(x, scales, weight, dilation), expected) < 1e-14


def test_gradients_are_right():
    *tensors, dilation = random_call(0, 2, 2, 3, (3, 4), torch.float64, 2)
    tensors[1] = torch.where(tensors[1] == 1, 0.7, tensors[1])  # between places, where there is but one slope
    tensors = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *tensors: SCALE_ADAPTIVE_CONV(*tensors, dilation), tensors)


def test_pytorch_finds_nothing_wrong():
    *tensors, dilation = random_call(0, 2, 4, 3, (5, 6), torch.float32, 2)
    # Not how it is traced with its gradient: nine taps take ten seconds. ModulatedDeformConv shows it with two.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    args = [*(t.requires_grad_() for t in tensors), dilation]
    torch.library.opcheck(SCALE_ADAPTIVE_CONV.torch, args, test_utils=checks)


@pytest.mark.parametrize("compute", [SCALE_ADAPTIVE_CONV, SCALE_ADAPTIVE_CONV.kernel], ids=["torch", "kernel"])
def test_shapes_that_do_not_belong_together_are_refused(compute):
    x, scales, weight, dilation = random_call(0, 2, 4, 3, (5, 6), torch.float32, 1)
    with pytest.raises(UsageError, match=r"takes scales of shape \(2, 1, 5, 6\) .* got \(1, 1, 5, 6\)"):
        compute(x, scales[:1], weight, dilation)
    with pytest.raises(UsageError, match=r"a weight of shape \(D, 4, 3, 3\) .* got .* and \(3, 3, 3, 3\)"):
        compute(x, scales, weight[:, :3], dilation)


class Adaptive(nn.Module):
    """A network with one scale-adaptive convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.scale = nn.Conv2d(8, 1, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 8, 3, 3) / 8)

    def forward(self, x):
        x = self.stem(x)
        return SCALE_ADAPTIVE_CONV(x, F.softplus(self.scale(x)), self.weight, 2)


def test_a_network_with_it_is_exported_and_built(tmp_path):
    torch.manual_seed(0)
    spec = ModelSpec("adaptive", 32, 48, classes=("a", "b", "c", "d"))
    report = export(Adaptive(), spec, tmp_path / "m.onnx")
    assert report.nodes["ScaleAdaptiveConv"] == 1
    assert report.agreement == 1
    build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
