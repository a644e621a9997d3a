import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import CRISS_CROSS_ATTENTION
from roadseg.runtime import ModelSpec, UsageError

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3}
"""Relative to the largest magnitude of the answer."""


def random_maps(n, depth, channels, rows, columns, seed=0):
    """Query, key and value; energies have a standard deviation of 1."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(n, c, rows, columns, generator=generator) for c in (depth, depth, channels))
    return query * depth**-0.5, key, value


@st.composite
def calls(draw):
    """Maps of one row or column, and of more positions and channels than a block."""
    n = draw(st.sampled_from([1, 1, 1, 1, 1, 2, 4]))
    depth = draw(st.sampled_from([1, 2, 5, 16, 17, 65]))
    channels = draw(st.sampled_from([1, 2, 3, 5, 7, 16, 17, 129]))
    sizes = [(1, 1), (1, 6), (3, 1), (2, 2), (2, 3), (3, 4), (1, 33), (2, 34)]
    maps = random_maps(n, depth, channels, *draw(st.sampled_from(sizes)), seed=draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float16]))
    return [x.to(dtype) for x in maps]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(calls())
def test_all_faces_gather_the_same(answer_of_function, call):
    expected = CRISS_CROSS_ATTENTION(*call)
    assert (expected.dtype, expected.shape) == (call[2].dtype, call[2].shape)
    for answer in (answer_of_function(CRISS_CROSS_ATTENTION, *call), CRISS_CROSS_ATTENTION.kernel(*call)):
        assert (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
        error = (answer.double() - expected.double()).abs().max()
        assert error <= TOLERANCE[expected.dtype] * expected.abs().max()


def test_a_map_of_many_blocks_is_covered_by_the_kernel():
    maps = random_maps(2, 70, 140, 3, 67)
    torch.testing.assert_close(
        CRISS_CROSS_ATTENTION.kernel(*maps), CRISS_CROSS_ATTENTION(*maps), rtol=0, atol=2e-6
    )


@pytest.fixture(params=["reference", "function", "kernel"])
def attend(request, answer_of_function):
    """Each face of the operator."""
    return {
        "reference": CRISS_CROSS_ATTENTION,
        "function": lambda *maps: answer_of_function(CRISS_CROSS_ATTENTION, *maps),
        "kernel": CRISS_CROSS_ATTENTION.kernel,
    }[request.param]


def test_equal_energies_give_the_mean_of_column_and_row_with_each_position_once(attend):
    zeros = torch.zeros(1, 2, 2, 3)
    value = torch.tensor([[[[4.0, 0, 0], [0, 0, 8]]]])  # four positions are seen from each
    assert attend(zeros, zeros, value).tolist() == [[[[1, 1, 3], [3, 2, 2]]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_energies_beyond_the_range_of_fp16_and_of_exp_give_all_weight_to_the_highest(attend, dtype):
    query, key, value = (torch.zeros(1, 1, 2, 3, dtype=dtype) for _ in range(3))
    query[:] = 300
    key[0, 0, 0, 2] = 300  # an energy of 90000 for all in the first row and in the last column
    value[0, 0] = torch.tensor([[0, 4, 7], [8, 0, 12]])
    assert attend(query, key, value).tolist() == [[[[7, 7, 7], [5, 6, 7]]]]


def test_a_position_counts_once_however_large_its_energy(attend):
    query = torch.full((1, 1, 2, 1), 1000.0)
    value = torch.tensor([[[[1.0], [3.0]]]])
    assert attend(query, query, value).flatten().tolist() == [2.0, 2.0]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (4, 6)])
def test_it_is_attention_that_sees_column_and_row_only(size):
    rows, columns = size
    query, key, value = random_maps(2, 3, 5, rows, columns)
    y, x = (
        places.flatten() for places in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    )
    seen = (y[:, None] == y) | (x[:, None] == x)
    q, k, v = (maps.flatten(2).transpose(1, 2) for maps in (query, key, value))
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1)
    answer = CRISS_CROSS_ATTENTION(query, key, value).flatten(2).transpose(1, 2)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)


def test_maps_may_lie_in_memory_in_any_order():
    maps = random_maps(2, 3, 5, 4, 6)
    others = [x.to(memory_format=torch.channels_last) for x in maps]
    for attend in (CRISS_CROSS_ATTENTION, CRISS_CROSS_ATTENTION.kernel):
        answer = attend(*others)
        assert answer.is_contiguous()
        torch.testing.assert_close(answer, attend(*maps), rtol=0, atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    maps = [x.double().requires_grad_() for x in random_maps(2, 2, 3, 3, 4)]
    assert torch.autograd.gradcheck(CRISS_CROSS_ATTENTION, maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_pytorch_finds_nothing_wrong_with_it(dtype):
    maps = tuple(x.to(dtype).requires_grad_() for x in random_maps(2, 3, 4, 5, 6))
    torch.library.opcheck(CRISS_CROSS_ATTENTION.torch, maps)


class Cross(nn.Module):
    """A network that gathers along column and row, once."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=8, padding=1)
        self.query = nn.Conv2d(16, 4, 1)
        self.key = nn.Conv2d(16, 4, 1)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(CRISS_CROSS_ATTENTION(self.query(x), self.key(x), x))


def test_a_network_with_it_is_exported_and_built(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    spec = ModelSpec("cross", 32, 56, classes=("a", "b"), io="tensor")
    report = export(Cross(), spec, tmp_path / "m.onnx", batch=None)
    assert report.nodes["CrissCrossAttention"] == 1
    assert report.max_logit_error < 1e-5
    build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")


@pytest.mark.parametrize(
    ("key", "value"),
    [((1, 4, 3, 6), (1, 8, 3, 5)), ((1, 4, 3, 5), (1, 8, 5, 3)), ((1, 4, 3, 5), (2, 8, 3, 5))],
)
def test_maps_that_do_not_belong_together_are_refused(key, value):
    for face in (CRISS_CROSS_ATTENTION, CRISS_CROSS_ATTENTION.kernel):
        with pytest.raises(UsageError, match=r"one shape \(N, D, H, W\).*; got \(1, 4, 3, 5\) torch.float32, "):
            face(torch.zeros(1, 4, 3, 5), torch.zeros(key), torch.zeros(value))
