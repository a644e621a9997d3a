import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import MODULATED_DEFORM_CONV
from roadseg.runtime import ModelSpec, UsageError

TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3}
OPTIONS = ("stride", "padding", "dilation", "groups", "offset_groups")


def random_call(seed, n, depth, outputs, size, window, dtype, options):
    """Arguments with offsets that reach past every border; `depth` and `outputs` are channels per group."""
    stride, padding, dilation, groups, offset_groups = options
    rows, columns = (
        (places + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for places, taps in zip(size, window, strict=True)
    )
    moved = offset_groups * window[0] * window[1]
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    x = random(n, depth * groups, *size)
    offset = 2 * random(n, 2 * moved, rows, columns)
    mask = random(n, moved, rows, columns).sigmoid()
    weight = random(outputs * groups, depth, *window)
    return (*(t.to(dtype) for t in (x, offset, mask, weight)), *options)


@st.composite
def calls(draw, dtypes=(torch.float32, torch.float16)):
    """Groups of channels and of offsets that part them differently, and all other options."""
    groups, offset_groups = draw(st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2)]))
    window = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    depth = offset_groups * draw(st.integers(1, 3)) if groups > 1 else offset_groups * draw(st.integers(1, 9))
    options = (draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2)), groups, offset_groups)
    size = draw(st.integers(3, 6)), draw(st.integers(5, 7))
    n = draw(st.sampled_from([1, 1, 2, 3, 4]))
    seed = draw(st.integers(0, 2**31))
    return random_call(
        seed, n, depth, draw(st.integers(1, 5)), size, window, draw(st.sampled_from(dtypes)), options
    )


def difference(y, expected):
    """Largest, relative to the largest magnitude that is expected."""
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    return float((y.double() - expected.double()).abs().max() / expected.double().abs().max())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(calls())
def test_all_faces_agree(answer_of_function, call):
    expected = MODULATED_DEFORM_CONV(*call)
    assert expected.dtype == call[0].dtype
    assert difference(answer_of_function(MODULATED_DEFORM_CONV, *call), expected) < TOLERANCES[expected.dtype]
    assert difference(MODULATED_DEFORM_CONV.kernel(*call), expected) < TOLERANCES[expected.dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_more_channels_outputs_and_places_than_a_block(answer_of_function, dtype):
    call = random_call(0, 1, 18, 65 if dtype == torch.float32 else 129, (7, 10), (3, 3), dtype, (1, 1, 1, 1, 1))
    expected = MODULATED_DEFORM_CONV(*call)
    assert difference(answer_of_function(MODULATED_DEFORM_CONV, *call), expected) < TOLERANCES[dtype]
    assert difference(MODULATED_DEFORM_CONV.kernel(*call), expected) < TOLERANCES[dtype]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(calls(dtypes=(torch.float32,)))
def test_it_is_onnxs_deform_conv(answer_of_function, call):
    x, offset, mask, weight, stride, padding, dilation, groups, offset_groups = call
    node = helper.make_node(
        "DeformConv", ["x", "weight", "offset", "", "mask"], ["y"], group=groups, offset_group=offset_groups,
        strides=[stride] * 2, pads=[padding] * 4, dilations=[dilation] * 2, kernel_shape=weight.shape[2:],
    )  # fmt: skip
    names = ("x", "weight", "offset", "mask")
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    feeds = {name: t.numpy() for name, t in zip(names, (x, weight, offset, mask), strict=True)}
    expected = torch.from_numpy(ReferenceEvaluator(model).run(None, feeds)[0].astype(np.float32))
    assert difference(MODULATED_DEFORM_CONV(*call), expected) < 2e-6
    assert difference(answer_of_function(MODULATED_DEFORM_CONV, *call), expected) < 2e-6


def test_what_a_tap_sees_is_interpolated_scaled_and_zero_beyond_the_border():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 8.0]]]])
    # In the middle of all four; half a row above the second; between those of the second row; far away.
    offset = torch.tensor([[[[0.5, -0.5], [0.0, 1e9]], [[0.5, 0.0], [0.5, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.5, 1.0]]]])
    call = (x, offset, mask, torch.full((1, 1, 1, 1), 2.0), 1, 0, 1, 1, 1)
    expected = [[[[2 * (1 + 2 + 3 + 8) / 4, 2 * 2 / 2], [2 * 0.5 * (3 + 8) / 2, 0.0]]]]
    assert MODULATED_DEFORM_CONV(*call).tolist() == expected
    assert MODULATED_DEFORM_CONV.kernel(*call).tolist() == expected


@pytest.mark.parametrize(("window", "groups"), [((1, 1), 1), ((3, 3), 1), ((3, 3), 2)])
def test_taps_that_stay_make_it_a_convolution(window, groups):
    x, offset, mask, weight, *options = random_call(
        0, 2, 4, 3, (9, 8), window, torch.float32, (2, 1, 2, groups, 1)
    )
    y = MODULATED_DEFORM_CONV(x, torch.zeros_like(offset), torch.ones_like(mask), weight, *options)
    assert difference(y, F.conv2d(x, weight, None, 2, 1, 2, groups)) < 2e-6


@pytest.mark.parametrize("options", [(1, 1, 1, 1, 1), (2, 1, 2, 2, 2)])
def test_gradients_are_right(options):
    call = random_call(0, 2, 2, 2, (4, 5), (2, 2), torch.float64, options)
    tensors = [t.requires_grad_() for t in call[:4]]
    assert torch.autograd.gradcheck(lambda *tensors: MODULATED_DEFORM_CONV(*tensors, *options), tensors)


def test_an_offset_of_zero_has_the_slope_towards_the_next_place():
    x = torch.tensor([[[[0.0, 3.0, 7.0, 12.0]]]])
    offset = torch.zeros(1, 2, 1, 4, requires_grad=True)
    MODULATED_DEFORM_CONV(
        x, offset, torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 1), 1, 0, 1, 1, 1
    ).sum().backward()
    assert offset.grad[0, 1].tolist() == [[3.0, 4.0, 5.0, -12.0]]


def test_pytorch_finds_nothing_wrong():
    call = random_call(0, 2, 4, 3, (5, 6), (1, 2), torch.float32, (1, 1, 1, 2, 2))
    torch.library.opcheck(MODULATED_DEFORM_CONV.torch, [t.requires_grad_() for t in call[:4]] + list(call[4:]))


@pytest.mark.parametrize("compute", [MODULATED_DEFORM_CONV, MODULATED_DEFORM_CONV.kernel], ids=["torch", "kernel"])
def test_shapes_that_do_not_belong_together_are_refused(compute):
    x, offset, mask, weight, *options = random_call(0, 1, 4, 4, (5, 6), (3, 3), torch.float32, (1, 1, 1, 1, 1))
    with pytest.raises(
        UsageError, match=r"a mask of shape \(1, 9, 5, 6\); got \(1, 18, 5, 6\) and \(1, 9, 5, 5\)"
    ):
        compute(x, offset, mask[..., :5], weight, *options)
    with pytest.raises(UsageError, match=r"groups=1 .* got \(4, 2, 3, 3\) for an x of shape \(1, 4, 5, 6\)"):
        compute(x, offset, mask, weight[:, :2], *options)


class Deformed(nn.Module):
    """A network with one modulated deformable convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.offset = nn.Conv2d(8, 2 * 2 * 9, 1)
        self.mask = nn.Conv2d(8, 2 * 9, 1)
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3) / 6)

    def forward(self, x):
        x = self.stem(x)
        return MODULATED_DEFORM_CONV(x, self.offset(x), self.mask(x).sigmoid(), self.weight, 1, 1, 1, 2, 2)


def test_a_network_with_it_is_exported_and_built(tmp_path):
    torch.manual_seed(0)
    spec = ModelSpec("deformed", 32, 48, classes=("a", "b", "c", "d"))
    report = export(Deformed(), spec, tmp_path / "m.onnx")
    assert report.nodes["ModulatedDeformConv"] == 1
    assert report.agreement == 1
    build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
