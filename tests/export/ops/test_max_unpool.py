import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import MAX_POOL_INDICES, MAX_UNPOOL
from roadseg.export.ops.max_unpool import names_maxima
from roadseg.runtime import ModelSpec, UsageError
from roadseg.runtime.plan import read_plan

ENET, SEGNET = (3, 2, 1), (2, 2, 0)
"""Of ports of ENet whose windows overlap; of SegNet, and of ENet as its authors wrote it."""
GEOMETRIES = [ENET, SEGNET, (2, 2, 1), (3, 2, 0), (3, 3, 1), (1, 2, 0), (2, 1, 1)]
"""Kernel, stride, padding."""
NUMBERS = [float("-inf"), float("-inf"), -65504.0, -1.0, -0.0, 0.0, 1.0, 1.0, float("inf")]
"""What maps are made of, so that many places are equal."""


def random_map(shape, numbers, generator):
    """Each place has one of `numbers`."""
    return torch.tensor(numbers)[torch.randint(len(numbers), shape, generator=generator)]


@st.composite
def maps(draw):
    """Maps with many equal places, none smaller than a window, and windows of every kind."""
    n, channels = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (4, 1)]))
    shape = (n, channels, draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = random_map(shape, NUMBERS, generator).to(draw(st.sampled_from([torch.float32, torch.float16])))
    return x, *draw(st.sampled_from(GEOMETRIES))


@st.composite
def unpoolings(draw):
    """What a network put through such windows, NaN included, and what they name."""
    x, *windows = draw(maps())
    indices = MAX_POOL_INDICES(x, *windows)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = random_map(indices.shape, [*NUMBERS, float("nan")], generator).to(x.dtype)
    return values, indices.to(draw(st.sampled_from([torch.int32, torch.int64]))), list(x.shape[2:]), *windows


def bits(x):
    """Of floating-point numbers, so that -0 differs from 0 and NaN equals itself."""
    return x.view({2: torch.int16, 4: torch.int32}[x.element_size()])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(maps())
def test_all_faces_find_the_maxima_at_the_same_places(answer_of_function, call):
    expected = MAX_POOL_INDICES(*call)
    assert expected.dtype == torch.int32
    assert torch.equal(answer_of_function(MAX_POOL_INDICES, *call), expected)
    assert torch.equal(MAX_POOL_INDICES.kernel(*call), expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(unpoolings())
def test_all_faces_put_the_same_bits_back(answer_of_function, call):
    expected = MAX_UNPOOL(*call)
    assert expected.dtype == call[0].dtype
    assert torch.equal(bits(MAX_UNPOOL.kernel(*call)), bits(expected))
    # ONNX Runtime's Where makes 0 of -0 (microsoft/onnxruntime issue 32191), as adding 0 does.
    assert torch.equal(bits(answer_of_function(MAX_UNPOOL, *call) + 0), bits(expected + 0))


@pytest.mark.parametrize("windows", [ENET, SEGNET])
def test_planes_of_more_places_than_a_block(answer_of_function, windows):
    x = random_map((1, 2, 35, 37), NUMBERS, torch.Generator().manual_seed(0))
    indices = MAX_POOL_INDICES(x, *windows)
    assert indices[0, 0].numel() > 256
    assert torch.equal(MAX_POOL_INDICES.kernel(x, *windows), indices)
    call = (F.max_pool2d(x, *windows), indices, [35, 37], *windows)
    expected = MAX_UNPOOL(*call)
    assert torch.equal(MAX_UNPOOL.kernel(*call), expected)
    assert torch.equal(answer_of_function(MAX_UNPOOL, *call), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("windows", GEOMETRIES)
def test_places_are_those_of_pytorchs_pooling(windows, dtype):
    x = random_map((2, 3, 18, 21), NUMBERS, torch.Generator().manual_seed(0)).to(dtype)
    _, expected = F.max_pool2d(x, *windows, return_indices=True)
    assert torch.equal(MAX_POOL_INDICES(x, *windows), expected.int())


def test_the_order_of_axes_in_memory_does_not_matter():
    x = random_map((2, 3, 8, 9), NUMBERS, torch.Generator().manual_seed(0))
    expected = MAX_POOL_INDICES(x, *ENET)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(MAX_POOL_INDICES(last, *ENET), expected)
    assert torch.equal(MAX_POOL_INDICES.kernel(last, *ENET), expected)
    values = F.max_pool2d(last, *ENET)
    indices = expected.contiguous(memory_format=torch.channels_last)
    answer = MAX_UNPOOL(values, expected, [8, 9], *ENET)
    assert torch.equal(MAX_UNPOOL(values, indices, [8, 9], *ENET), answer)
    assert torch.equal(MAX_UNPOOL.kernel(values, indices, [8, 9], *ENET), answer)


def test_of_equal_places_the_first_is_named_and_never_the_padding():
    x = torch.tensor([[0.0, 2.0, 2.0], [0.0, 2.0, 1.0], [-1.0, -1.0, -1.0]])[None, None]
    assert MAX_POOL_INDICES(x, *ENET).tolist() == [[[[1, 1], [4, 4]]]]
    least = torch.full((1, 1, 3, 3), float("-inf"))
    assert MAX_POOL_INDICES(least, *ENET).tolist() == [[[[0, 1], [3, 4]]]]


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_a_place_is_as_good_if_its_window_sees_it_and_it_is_the_largest_but_for_the_error(error):
    x = random_map((1, 2, 5, 6), NUMBERS, torch.Generator().manual_seed(0))
    for place in range(-1, 31):
        found = names_maxima(torch.full((1, 2, 3, 3), place, dtype=torch.int32), error, x, *ENET)
        for channel, i, j in product(range(2), range(3), range(3)):
            window = {6 * r + c: x[0, channel, r, c].item() for r in seen(i, 5) for c in seen(j, 6)}
            assert found[0, channel, i, j] == (window.get(place, math.nan) >= max(window.values()) - error)


def test_of_windows_that_name_one_place_the_last_has_it():
    # The two upper windows name place 1, the two lower ones place 4.
    values, indices = torch.tensor([[[[9.0, 5.0], [-0.5, -1.0]]]]), torch.tensor([[[[1, 1], [4, 4]]]])
    assert MAX_UNPOOL(values, indices, [3, 3], *ENET).tolist() == [[[[0, 5, 0], [0, -1, 0], [0, 0, 0]]]]


@pytest.mark.parametrize("windows", [SEGNET, (1, 2, 0), (3, 3, 1)])
def test_where_no_windows_meet_it_is_pytorchs_unpooling(windows):
    x = torch.randn(2, 3, 18, 21, generator=torch.Generator().manual_seed(0))
    values, indices = F.max_pool2d(x, *windows, return_indices=True)
    expected = F.max_unpool2d(values, indices, *windows, output_size=x.shape[2:])
    assert torch.equal(MAX_UNPOOL(values, indices, x.shape[2:], *windows), expected)


@pytest.mark.parametrize("windows", [ENET, (2, 1, 1), (4, 2, 2)])
def test_where_windows_meet_it_is_a_loop_that_writes_in_their_order(windows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 11, 14, generator=generator)
    indices = MAX_POOL_INDICES(x, *windows)
    values = torch.randn(indices.shape, generator=generator)
    expected = torch.zeros(2 * 3, 11 * 14)
    for plane, named, numbers in zip(expected, indices.view(6, -1).tolist(), values.view(6, -1), strict=True):
        assert len(set(named)) < len(named)
        for place, number in zip(named, numbers, strict=True):
            plane[place] = number
    assert torch.equal(MAX_UNPOOL(values, indices, [11, 14], *windows), expected.view(2, 3, 11, 14))


def test_a_window_with_nan_names_a_place_of_its_own(answer_of_function):
    numbers = [0.0, 1.0, float("nan"), float("nan"), float("-inf")]
    x = random_map((1, 3, 6, 7), numbers, torch.Generator().manual_seed(0))
    own = [{r * 7 + c for r in seen(i, 6) for c in seen(j, 7)} for i in range(3) for j in range(4)]
    for face in (MAX_POOL_INDICES, MAX_POOL_INDICES.kernel, lambda *a: answer_of_function(MAX_POOL_INDICES, *a)):
        for plane in face(x, *ENET).view(3, -1).tolist():
            assert all(place in places for place, places in zip(plane, own, strict=True))


def seen(window, length):
    """Places along an axis that a window of ENet's sees."""
    return range(max(2 * window - 1, 0), min(2 * window + 2, length))


@pytest.mark.parametrize("windows", [(3, 1, 1), (5, 2, 2), (0, 1, 0), (2, 0, 0), (2, 2, -1), (3, 2, 2)])
def test_other_windows_are_refused_with_those_that_are_not(windows):
    x = torch.zeros(1, 1, 8, 8)
    for face in (MAX_POOL_INDICES, MAX_POOL_INDICES.kernel):
        with pytest.raises(
            UsageError, match=r"1 to twice the stride .* 2, 2 and 0 in SegNet and ENet, 3, 2 and 1 in ports"
        ):
            face(x, *windows)
    for face in (MAX_UNPOOL, MAX_UNPOOL.kernel):
        with pytest.raises(UsageError, match="are not supported"):
            face(x, x.int(), [8, 8], *windows)


def test_a_map_without_a_window_is_refused():
    with pytest.raises(UsageError, match=r"a map of size \(4, 2\) with padding 0 is smaller than a window of 3"):
        MAX_POOL_INDICES(torch.zeros(1, 1, 4, 2), 3, 2, 0)


@pytest.mark.parametrize(("values", "indices"), [((1, 2, 4, 4), (1, 2, 4, 5)), ((1, 2, 4, 5), (1, 1, 4, 5))])
def test_windows_of_another_map_are_refused(values, indices):
    for face in (MAX_UNPOOL, MAX_UNPOOL.kernel):
        with pytest.raises(UsageError, match=r"are of shape \(1, 2, 4, 5\) for size \(8, 9\), kernel 3"):
            face(torch.zeros(values), torch.zeros(indices, dtype=torch.int32), [8, 9], *ENET)


@pytest.mark.parametrize("windows", [ENET, SEGNET])
def test_pytorchs_rules_for_operators_are_kept(windows):
    x = torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.library.opcheck(MAX_POOL_INDICES.torch, (x, *windows))
    indices = MAX_POOL_INDICES(x, *windows)
    values = F.max_pool2d(x, *windows).requires_grad_()
    torch.library.opcheck(MAX_UNPOOL.torch, (values, indices, [5, 6], *windows))


@pytest.mark.parametrize("windows", [ENET, SEGNET])
def test_the_gradient_of_unpooling_is_right(windows):
    x = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    indices = MAX_POOL_INDICES(x, *windows)
    values = torch.randn(indices.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: MAX_UNPOOL(v, indices, [5, 6], *windows), values)


def test_a_window_that_lost_its_place_has_no_gradient():
    values = torch.ones(1, 1, 2, 2, requires_grad=True)
    answer = MAX_UNPOOL(values, torch.tensor([[[[1, 1], [4, 4]]]]), [3, 3], *ENET)
    answer.backward(torch.arange(9.0).view(1, 1, 3, 3))
    assert values.grad.tolist() == [[[[0, 1], [0, 4]]]]


def test_indices_have_no_gradient():
    assert not MAX_POOL_INDICES(torch.randn(1, 1, 4, 4, requires_grad=True), *ENET).requires_grad


class Encoder(nn.Module):
    """Pools as ENet and then as SegNet, and undoes both.

    No arithmetic comes before: where rounding makes two places nearly equal, it decides which one is named.
    """

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        half = F.max_pool2d(x, *ENET)
        small = self.mix(F.max_pool2d(half, *SEGNET))
        wide = MAX_UNPOOL(small, MAX_POOL_INDICES(half, *SEGNET), half.shape[2:], *SEGNET)
        return self.head(MAX_UNPOOL(wide, MAX_POOL_INDICES(x, *ENET), x.shape[2:], *ENET))


@pytest.mark.parametrize("batch", [1, None])
def test_a_network_with_both_is_exported_and_built(tmp_path, batch):
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    spec = ModelSpec("encoder", 30, 46, classes=("a", "b", "c", "d"), io="tensor")
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    report = export(Encoder(), spec, model, batch=batch)
    assert (report.nodes["MaxPoolIndices"], report.nodes["MaxUnpool2d"]) == (2, 2)
    assert report.max_logit_error < 1e-5
    build(model, plan, flavour="rtx", compute_capability="8.6")
    assert read_plan(plan)[1].output.shape[1:] == (4, 30, 46)
