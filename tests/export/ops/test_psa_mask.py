import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadseg.engines import build
from roadseg.export import export
from roadseg.export.ops import PSA_COLLECT, PSA_DISTRIBUTE, PSA_MASK
from roadseg.runtime import ModelSpec, UsageError

ALL = (PSA_MASK, PSA_COLLECT, PSA_DISTRIBUTE)
each_op = pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)


def random_scores(n, window, rows, columns, seed=0):
    return torch.randn(n, window**2, rows, columns, generator=torch.Generator().manual_seed(seed))


@st.composite
def calls(draw):
    """Maps of up to three blocks, windows smaller and larger than they are, scores both mild and beyond exp."""
    window = draw(st.sampled_from([1, 3, 5, 7, 13]))
    sizes = st.sampled_from([(1, 1), (1, 7), (2, 3), (5, 1), (3, 4), (6, 5), (5, 7), (2, 33)])
    n = draw(st.sampled_from([1, 1, 1, 1, 1, 2, 4]))
    scores = random_scores(n, window, *draw(sizes), seed=draw(st.integers(0, 2**31)))
    scores = draw(st.sampled_from([1, 1, 100])) * scores + draw(st.sampled_from([0, 0, -200, 200]))
    return scores.to(draw(st.sampled_from([torch.float32, torch.float16]))), window


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(ALL), calls())
def test_all_faces_give_the_same(answer_of_function, op, call):
    expected = op(*call)
    tolerance = 0 if op is PSA_MASK else 2e-6 if expected.dtype == torch.float32 else 2e-3
    for answer in (answer_of_function(op, *call), op.kernel(*call)):
        assert (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
        assert (answer - expected).abs().max() <= tolerance * expected.abs().max()


@each_op
def test_maps_of_many_blocks_are_covered_by_the_kernel(op):
    scores = random_scores(1, 7, 9, 17)
    torch.testing.assert_close(op.kernel(scores, 7), op(scores, 7), rtol=0, atol=5e-7 * (op is not PSA_MASK))


@pytest.mark.parametrize("window", [1, 3, 5, 9, 15])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (2, 3), (4, 6), (7, 5)])
def test_a_score_stands_where_its_offset_in_the_window_points_to(size, window):
    scores = random_scores(2, window, *size)
    places = list(itertools.product(*map(range, size)))
    expected = torch.zeros(2, len(places), len(places))
    for (own, (h, w)), (other, (h2, w2)) in itertools.product(enumerate(places), repeat=2):
        down, along = h2 - h + window // 2, w2 - w + window // 2
        if 0 <= down < window and 0 <= along < window:
            expected[:, own, other] = scores[:, down * window + along, h, w]
    assert torch.equal(PSA_MASK(scores, window), expected)


def test_weights_of_two_places_are_those_worked_out_by_hand():
    # Of itself a place says 0; the first says log 3 of the second, which is behind the window's centre.
    scores = torch.zeros(1, 9, 1, 2)
    scores[0, 5, 0, 0] = math.log(3)
    assert PSA_MASK(scores, 3)[0].exp().tolist() == [[1, pytest.approx(3)], [1, 1]]
    assert torch.allclose(PSA_COLLECT(scores, 3)[0], torch.tensor([[0.25, 0.5], [0.75, 0.5]]))
    assert torch.allclose(PSA_DISTRIBUTE(scores, 3)[0], torch.tensor([[0.5, 0.75], [0.5, 0.25]]))


def test_places_outside_the_window_get_the_weight_of_a_zero():
    scores = torch.tensor([math.log(3), math.log(7)]).reshape(1, 1, 1, 2)
    for op in (PSA_COLLECT, PSA_DISTRIBUTE):
        assert torch.allclose(op(scores, 1)[0], torch.tensor([[3 / 4, 1 / 8], [1 / 4, 7 / 8]]))


@pytest.mark.parametrize(("size", "window"), [((5, 7), 3), ((4, 6), 5), ((3, 2), 9)])
def test_weights_are_the_softmax_of_what_a_place_says_or_of_what_is_said_of_it(size, window):
    scores = random_scores(2, window, *size)
    says = PSA_MASK(scores, window).exp()  # (N, own, other)
    collected, distributed = says / says.sum(2, keepdim=True), says / says.sum(1, keepdim=True)
    torch.testing.assert_close(PSA_COLLECT(scores, window), collected.transpose(1, 2))
    torch.testing.assert_close(PSA_DISTRIBUTE(scores, window), distributed)


@each_op
@pytest.mark.parametrize("window", [4, 5])
def test_scores_of_another_window_are_refused(op, window):
    for face in (op, op.kernel):
        with pytest.raises(UsageError, match=rf"got a window of {window} and scores of shape \(1, 9, 2, 3\)"):
            face(torch.zeros(1, 9, 2, 3), window)


@each_op
def test_the_answer_is_memory_of_its_own(op):
    scores = torch.zeros(1, 1, 1, 1)
    answer = op(scores, 1)
    assert answer.untyped_storage().data_ptr() != scores.untyped_storage().data_ptr()
    assert op(random_scores(2, 3, 4, 5), 3).is_contiguous()


@each_op
@pytest.mark.parametrize(("size", "window"), [((3, 4), 3), ((2, 3), 7)])
def test_gradients_are_those_of_finite_differences(op, size, window):
    scores = random_scores(2, window, *size).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op(x, window), scores)


@each_op
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_pytorch_finds_nothing_wrong_with_it(op, dtype):
    torch.library.opcheck(op.torch, (random_scores(2, 3, 4, 5).to(dtype).requires_grad_(), 3))


class Exchange(nn.Module):
    """A network whose places mask, collect and distribute, by windows smaller and larger than the map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.predict = nn.ModuleList(nn.Conv2d(4, window**2, 1) for window in (5, 3, 13))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)  # (N, 4, 4, 6)
        scores = zip(ALL, self.predict, (5, 3, 13), strict=True)
        weights = sum(op(predict(x), window) for op, predict, window in scores)
        return self.head((x.flatten(2) @ weights).reshape(x.shape))


def test_a_network_with_them_is_exported_and_built(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    spec = ModelSpec("exchange", 32, 48, classes=("a", "b"), io="tensor")
    report = export(Exchange(), spec, tmp_path / "m.onnx", batch=None)
    assert {op.name for op in ALL} <= set(report.nodes)
    assert report.max_logit_error < 1e-5
    build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
