import copy

import onnx
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roadseg.export import export
from roadseg.export.ops import (
    CRISS_CROSS_ATTENTION,
    MAX_UNPOOL,
    NON_LOCAL_ATTENTION,
    OPS,
    SCALE_ADAPTIVE_CONV,
    UPSAMPLE_ARGMAX,
    Op,
    flop_formulas,
)
from roadseg.export.ops.standard_names import STANDARD_NAMES
from roadseg.runtime import ModelSpec, Segmenter, UsageError


@pytest.mark.parametrize("name", ["Relu", "DeformConv", "MaxUnpool"])
def test_the_name_of_a_standard_operator_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} is the name of a standard ONNX operator"):
        Op(name, max, "y = Identity (x)", full_frame=tuple)  # nothing else of it is looked at


def test_the_names_of_standard_operators_are_those_that_onnx_has():
    assert {schema.name for schema in onnx.defs.get_all_schemas()} <= STANDARD_NAMES


def test_arguments_become_inputs_and_attributes():
    x = torch.zeros(1, 2, 3, 4)
    inputs, attributes = UPSAMPLE_ARGMAX.arguments(x, [6, 8], align_corners=True)
    assert inputs == [x]
    assert attributes == {"size": [6, 8], "coordinates": "align_corners"}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_inputs_and_attributes_as_a_file_holds_them_become_arguments_again(op):
    args = op.full_frame(torch.float32)
    inputs, attributes = op.arguments(*args)
    stored = {name: onnx.helper.make_attribute(name, value) for name, value in attributes.items()}
    read = {name: onnx.helper.get_attribute_value(attribute) for name, attribute in stored.items()}
    read = {name: value.decode() if isinstance(value, bytes) else value for name, value in read.items()}
    again = op.arguments(*op.call(inputs, read))
    assert again[0] == inputs
    assert again[1].keys() == attributes.keys()
    assert all(again[1][name] == pytest.approx(value) for name, value in attributes.items())


def test_a_frame_that_is_cropped_pasted_and_turned_round_comes_back_from_its_attributes():
    frames = torch.zeros(1, 20, 30, 3, dtype=torch.uint8)
    args = ([1.0, 2.0, 3.0], [0.5, 0.25, 0.0], [2, 3, 10, 12], [5, 6], [8, 9], [1, 2], [7, 8, 9], True, True)
    op = OPS["FramePreprocess"]
    assert op.call(*op.arguments(frames, *args)) == (frames, *args)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_body_is_valid_in_every_opset_that_is_written(op):
    for opset in range(18, 24):
        function = op.function(opset)
        assert (function.domain, function.name, function.opset_import[0].version) == ("roadseg", op.name, opset)
        onnx.checker.check_function(function)


def random_maps(dtype=torch.float32):
    """Query, key and value of 3 x 4 positions."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 3, 4, generator=generator).to(dtype) for channels in (5, 5, 6)]


@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
def test_under_autocast_inputs_are_rounded_and_nothing_else(lower):
    maps = [x.requires_grad_() for x in random_maps()]
    rounded = [x.detach().to(lower).requires_grad_() for x in maps]
    gradient = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(1)).to(lower)
    expected = CRISS_CROSS_ATTENTION(*rounded)
    expected.backward(gradient)
    with torch.autocast("cpu", lower):
        # As where a convolution made query and key, and an upsampling the value.
        answer = CRISS_CROSS_ATTENTION(maps[0].to(lower), maps[1].to(lower), value=maps[2])
        answer.backward(gradient)
    assert answer.dtype == lower
    assert torch.equal(answer, expected)
    for whole, lowered in zip(maps, rounded, strict=True):
        assert torch.equal(whole.grad, lowered.grad.float())


def test_autocast_leaves_doubles_and_integers_as_they_are():
    maps = random_maps(torch.float64)
    expected = CRISS_CROSS_ATTENTION(*maps)
    values, places = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[5, 2]]]])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(CRISS_CROSS_ATTENTION(*maps), expected)
        unpooled = MAX_UNPOOL(values, places, [2, 4], 2, 2, 0)
    assert unpooled.tolist() == [[[[0, 0, 2, 0], [0, 1, 0, 0]]]]


def test_a_copy_is_the_operator_itself():
    assert copy.deepcopy(CRISS_CROSS_ATTENTION) is CRISS_CROSS_ATTENTION


def counted(op, *args):
    """Floating-point operations of a call, as PyTorch counts them."""
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        op(*args)
    return counter.get_total_flops()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_pytorch_counts_what_its_products_cost(device):
    query, key, value = (x.to(device) for x in random_maps())  # of 5, 5 and 6 channels
    # Two frames; every position multiplies and adds 5 channels of each partner, and then 6.
    assert counted(CRISS_CROSS_ATTENTION, query, key, value) == 2 * 2 * 12 * (3 + 4) * (5 + 6)
    assert counted(NON_LOCAL_ATTENTION, query, key, value, 1.0) == 2 * 2 * 12 * 12 * (5 + 6)
    weight = torch.zeros(7, 6, 3, 3, device=device)
    assert counted(SCALE_ADAPTIVE_CONV, value, value[:, :1], weight, 1) == 2 * 2 * 12 * 9 * 6 * 7


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_call_at_full_frame_is_counted(op):
    multiplies = {"CrissCrossAttention", "ModulatedDeformConv", "NonLocalAttention", "ScaleAdaptiveConv"}
    assert (counted(op, *op.full_frame(torch.float16)) > 0) == (op.name in multiplies)


class Labels(nn.Module):
    """A network that answers with labels at twice the size, as floats."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(1, 5, 1)

    def forward(self, x):
        labels = UPSAMPLE_ARGMAX(self.conv(x), [2 * n for n in x.shape[2:]], False)
        return self.mix(labels[:, None].float())


def test_a_network_is_exported_with_the_operator_as_a_node_and_its_body_as_a_function(tmp_path):
    torch.manual_seed(0)
    spec = ModelSpec("labels", 32, 48, classes=("a", "b", "c", "d", "e"))
    report = export(Labels(), spec, tmp_path / "m.onnx")
    assert report.nodes["UpsampleArgmax"] == 1
    assert report.agreement == 1
    model = onnx.load(tmp_path / "m.onnx")
    assert [(f.domain, f.name) for f in model.functions] == [("roadseg", "UpsampleArgmax")]
    assert Segmenter.open(tmp_path / "m.onnx").spec == spec


def test_a_network_without_custom_operators_has_no_functions(tmp_path):
    spec = ModelSpec("plain", 32, 48, classes=("a", "b"))
    export(nn.Conv2d(3, 2, 1), spec, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert not model.functions
    assert {opset.domain for opset in model.opset_import} == {""}


@pytest.mark.parametrize(
    ("op", "dtype", "by_kernel"),
    [
        (NON_LOCAL_ATTENTION, torch.float16, True),
        (NON_LOCAL_ATTENTION, torch.float32, True),
        (NON_LOCAL_ATTENTION, torch.bfloat16, False),
        (NON_LOCAL_ATTENTION, torch.float64, False),
        (CRISS_CROSS_ATTENTION, torch.float16, True),
        (CRISS_CROSS_ATTENTION, torch.float32, False),
    ],
)
def test_a_gpu_runs_the_kernel_for_types_that_it_is_written_for_and_fast_in(monkeypatch, op, dtype, by_kernel):
    called = []
    monkeypatch.setattr(op, "kernel", lambda *args: called.append(args))
    monkeypatch.setattr(op, "reference", lambda *args: None)
    x = torch.zeros(1, 16, 2, 2, dtype=dtype)
    op.on_gpu(*[x] * 3, *[1.0] * (op is NON_LOCAL_ATTENTION))
    assert bool(called) == by_kernel
