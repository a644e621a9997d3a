import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import NON_LOCAL_ATTENTION, non_local_attention
from roadseg.export.ops.costs import body_cost, kernel_cost, single_node_model
from roadseg.export.ops.non_local_attention import BODY_ATTENTION, full_frame
from roadseg.runtime import ModelSpec, UsageError

BARS = {torch.float32: 2e-6, torch.float16: 2e-3}
"""Relative to the largest magnitude of an answer."""


def maps(n, depth, channels, size, from_size, dtype=torch.float32, seed=0):
    """Query, key and value."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, depth, *size), (n, depth, *from_size), (n, channels, *from_size)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@st.composite
def calls(draw):
    """Maps of one position to several blocks, of one size or of two, and energies of either sign."""
    n, depth, channels = (draw(st.integers(1, most)) for most in (4, 40, 40))
    size, other = ([draw(st.integers(1, 5)), draw(st.integers(1, 8))] for _ in range(2))
    dtype = draw(st.sampled_from([torch.float32, torch.float16]))
    query, key, value = maps(
        n, depth, channels, size, draw(st.sampled_from([size, other])), dtype, draw(st.integers(0, 2**31))
    )
    # Values of one sign: a mean of both may come out far smaller than the rounding of what it is a mean of.
    return query, key, value.abs(), draw(st.sampled_from([1.0, 0.5, -0.7, 0.0])) * depth**-0.5


def assert_close(y, expected):
    assert y.dtype == expected.dtype
    assert y.shape == expected.shape
    error = (y.double() - expected.double()).abs().max()
    assert error <= BARS[y.dtype] * expected.double().abs().max()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(calls())
def test_all_faces_gather_the_same(answer_of_function, call):
    expected = NON_LOCAL_ATTENTION(*call)
    assert_close(answer_of_function(NON_LOCAL_ATTENTION, *call), expected)
    assert_close(NON_LOCAL_ATTENTION.kernel(*call), expected)


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("depth", "channels"), [(130, 20), (64, 257), (65, 300)])
def test_more_channels_than_a_block_holds(answer_of_function, dtype, depth, channels):
    call = *maps(1, depth, channels, (7, 10), (5, 7), dtype), depth**-0.5
    expected = NON_LOCAL_ATTENTION(*call)
    assert_close(answer_of_function(NON_LOCAL_ATTENTION, *call), expected)
    assert_close(NON_LOCAL_ATTENTION.kernel(*call), expected)


@pytest.mark.parametrize("tile", [1, 4, 35, 4096])
def test_it_is_pytorchs_attention_of_one_head_in_tiles_of_any_size(monkeypatch, tile):
    monkeypatch.setattr(non_local_attention, "TILE", tile)
    query, key, value = maps(2, 4, 6, (5, 7), (3, 4))
    q, k, v = (x.flatten(2).transpose(1, 2) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).reshape(2, 6, 5, 7)
    torch.testing.assert_close(NON_LOCAL_ATTENTION(query, key, value, 0.5), expected)


def every_face(answer_of_function, *call):
    """Reference, body and kernel.

    ONNX Runtime leaves out casts to FP16 and back; the reference evaluator computes the body as it is written.
    """
    as_written = onnx.reference.ReferenceEvaluator(single_node_model(NON_LOCAL_ATTENTION, call, opset=20))
    return (
        NON_LOCAL_ATTENTION(*call),
        answer_of_function(NON_LOCAL_ATTENTION, *call),
        torch.from_numpy(as_written.run(None, feeds(call))[0]),
        NON_LOCAL_ATTENTION.kernel(*call),
    )


def feeds(call):
    """Inputs of a model of one call."""
    return {name: x.numpy() for name, x in zip(NON_LOCAL_ATTENTION.inputs, call, strict=False)}


def test_an_energy_of_ln_3_weighs_three_times_as_much_as_one_of_0(answer_of_function):
    query = torch.tensor([1.0986123, 0.0]).reshape(1, 1, 1, 2)
    key = torch.tensor([2.0, 0.0]).reshape(1, 1, 2, 1)
    value = torch.tensor([4.0, 8.0]).reshape(1, 1, 2, 1)
    # The first query weighs 4 and 8 with 3/4 and 1/4, the second with 1/2 and 1/2.
    for y in every_face(answer_of_function, query, key, value, 0.5):
        assert y.flatten().tolist() == pytest.approx([5.0, 6.0], rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_energies_beyond_the_range_of_fp16_still_tell_places_apart(answer_of_function, scale):
    query = torch.full((1, 2, 1, 1), 512, dtype=torch.float16)
    key = torch.tensor([[512, 512], [512, 256], [-512, -512]], dtype=torch.float16).T.reshape(1, 2, 3, 1)
    value = torch.tensor([1, 2, 3], dtype=torch.float16).reshape(1, 1, 3, 1)
    # Energies are 524288, 393216 and -524288, times the scale; as infinities they would give NaN.
    for y in every_face(answer_of_function, query, key, value, scale):
        assert y.item() == 1


def test_an_energy_that_rises_from_block_to_block_makes_what_was_gathered_before_vanish(answer_of_function):
    query = torch.ones(1, 1, 1, 1)
    key = torch.arange(100.0).reshape(1, 1, 1, 100) * 50
    for y in every_face(answer_of_function, query, key, key + 1, 1.0):
        assert y.item() == 4951


@pytest.mark.parametrize("share", [2.0**-26, 2.0**-24])
def test_many_weights_too_small_for_fp16_add_up(answer_of_function, share):
    rows = 4096
    query = torch.ones(1, 1, 1, 1, dtype=torch.float16)
    key = torch.full((1, 1, rows, 2), torch.tensor(share).log(), dtype=torch.float16)
    key[0, 0, 0, 0] = 0
    value = torch.full((1, 1, rows, 2), 32768, dtype=torch.float16)
    value[0, 0, 0, 0] = 0
    # Each of the small weights would be rounded to 0, or to the smallest number that there is.
    small = (2 * rows - 1) * key[0, 0, 1, 0].double().exp().item()
    for y in every_face(answer_of_function, query, key, value, 1.0):
        assert y.item() == pytest.approx(32768 * small / (1 + small), rel=2e-3)


def test_a_place_that_alone_is_there_is_what_is_gathered(answer_of_function):
    query, key, value = maps(2, 3, 5, (2, 3), (1, 1))
    for y in every_face(answer_of_function, query, key, value, 1.0):
        assert torch.equal(y, value.expand(2, 5, 2, 3))


def test_maps_that_are_not_contiguous():
    query, key, value = (x.transpose(2, 3) for x in maps(2, 3, 5, (2, 3), (4, 3)))
    assert_close(NON_LOCAL_ATTENTION.kernel(query, key, value, 1.0), NON_LOCAL_ATTENTION(query, key, value, 1.0))


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("from_size", [(3, 4), (2, 5)])
def test_pytorch_finds_a_well_behaved_operator(dtype, from_size):
    inputs = [x.requires_grad_() for x in maps(2, 3, 5, (3, 4), from_size, dtype)]
    torch.library.opcheck(NON_LOCAL_ATTENTION.torch, (*inputs, 0.5))


def test_the_gradient_is_that_of_finite_differences():
    inputs = [x.requires_grad_() for x in maps(2, 3, 2, (2, 3), (2, 2), torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: NON_LOCAL_ATTENTION(*x, 0.5), inputs)


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("evaluate", ["onnxruntime", "onnx"])
def test_the_attention_of_opset_23_gathers_the_same(monkeypatch, dtype, evaluate):
    monkeypatch.setattr(NON_LOCAL_ATTENTION, "body", BODY_ATTENTION)
    call = *maps(2, 5, 6, (3, 4), (2, 7), dtype), 0.3
    model = single_node_model(NON_LOCAL_ATTENTION, call, opset=23)
    onnx.checker.check_model(model, full_check=True)
    if evaluate == "onnxruntime":
        run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run
    else:
        run = onnx.reference.ReferenceEvaluator(model).run
    assert_close(torch.from_numpy(run(None, feeds(call))[0]), NON_LOCAL_ATTENTION(*call))


@pytest.mark.parametrize("opset", range(18, 24))
def test_the_body_is_valid_in_every_opset_that_is_written(opset):
    onnx.checker.check_function(NON_LOCAL_ATTENTION.function(opset))


def test_every_tile_waits_for_the_one_before():
    needs = {}
    for node in NON_LOCAL_ATTENTION.function(20).node:
        needs |= {output: {*node.input}.union(*(needs.get(x, ()) for x in node.input)) for output in node.output}
    for i in range(1, non_local_attention.TILES):
        assert f"gathered_{i - 1}" in needs[f"energies_{i}"]


def test_neither_body_nor_kernel_holds_the_energies_of_all_positions():
    call = full_frame(torch.float16)
    tile_bytes = 4096 * 32768 * 4
    assert 2 * tile_bytes <= body_cost(NON_LOCAL_ATTENTION, call).peak_bytes <= 2.3 * tile_bytes
    assert kernel_cost(NON_LOCAL_ATTENTION, call).peak_bytes == 32768 * (64 + 64 + 512 + 512) * 2


class Attending(nn.Module):
    """A network whose positions, fewer than the body has tiles, or more, attend to each other."""

    def __init__(self, stride):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(3, c, stride, stride) for c in (4, 4, 5))

    def forward(self, x):
        return NON_LOCAL_ATTENTION(self.query(x), self.key(x), self.value(x), 0.5)


@pytest.mark.parametrize("stride", [8, 4])
def test_a_network_with_it_is_exported_and_built(tmp_path, stride):
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    spec = ModelSpec("attending", 16, 24, classes=("a", "b", "c", "d", "e"))
    report = export(Attending(stride), spec, tmp_path / "m.onnx")
    assert report.nodes["NonLocalAttention"] == 1
    assert report.agreement == 1
    build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    assert (tmp_path / "m.plan").stat().st_size > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [((1, 5, 2, 6), (1, 8, 2, 6)), ((1, 4, 2, 6), (1, 8, 2, 5)), ((2, 4, 2, 6), (2, 8, 2, 6))],
)
def test_maps_that_do_not_belong_together_are_refused(key, value):
    for face in (NON_LOCAL_ATTENTION, NON_LOCAL_ATTENTION.kernel):
        with pytest.raises(UsageError, match=r"a value \(N, C, H2, W2\).*; got \(1, 4, 3, 5\) torch.float32, "):
            face(torch.zeros(1, 4, 3, 5), torch.zeros(key), torch.zeros(value), 1.0)


@pytest.mark.parametrize(
    ("architecture", "places", "block"),
    [(75, 256, 32), (87, 256, 64), (90, 256, 128), (90, 257, 64), (120, 256, 64)],
)
def test_blocks_are_as_large_as_a_gpu_and_the_alignment_allow(architecture, places, block):
    query, value = (torch.empty(1, c, 1, places, dtype=torch.float16, device="meta") for c in (64, 512))
    call = NON_LOCAL_ATTENTION.kernel.call_for(query, query, value, 1.0, architecture=architecture)
    assert call.constants["block"] == block
    assert call.grid == (-(-places // block), -(-512 // call.constants["block_channels"]), 1)
