import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roadseg.export.ops import UPSAMPLE_ARGMAX
from roadseg.export.ops.upsample_argmax import rows_between, step


@st.composite
def calls(draw):
    """Logits with classes that are equal everywhere, sizes that do not divide, both ways to align corners."""
    n, classes, rows, columns = (draw(st.integers(1, most)) for most in (4, 4, 5, 6))
    size = [draw(st.integers(1, 7)), draw(st.integers(1, 30))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(n, classes, rows, columns, generator=generator)
    logits = torch.cat([logits, logits[:, : draw(st.integers(0, classes))]], dim=1)
    order = torch.randperm(logits.shape[1], generator=generator)
    return logits[:, order].to(draw(st.sampled_from([torch.float32, torch.float16]))), size, draw(st.booleans())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(calls())
def test_all_faces_give_the_same_labels(answer_of_function, call):
    assume(not rounding_decides(*call))
    expected = UPSAMPLE_ARGMAX(*call)
    assert expected.dtype == torch.uint8
    assert torch.equal(answer_of_function(UPSAMPLE_ARGMAX, *call), expected)
    assert torch.equal(UPSAMPLE_ARGMAX.kernel(*call), expected)


def rounding_decides(logits, size, align_corners):
    """Whether two classes come within rounding of each other somewhere, without being equal."""
    full = F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)
    gaps = full.amax(1, keepdim=True) - full
    return bool(((gaps > 1e-12) & (gaps < 1e-5)).any())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_the_kernel_labels_every_row_whatever_the_factor(rows, align_corners):
    logits = torch.randn(1, 4, rows, 3, generator=torch.Generator().manual_seed(0))
    for to_rows in (1, 2, 3, 5, 8, 9, 12, 21, 24, 31, 64):
        expected = UPSAMPLE_ARGMAX(logits, [to_rows, 7], align_corners)
        assert torch.equal(UPSAMPLE_ARGMAX.kernel(logits, [to_rows, 7], align_corners), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_each_row_is_in_the_reach_of_the_rows_of_logits_it_lies_between(align_corners):
    offset = np.float32(0 if align_corners else 0.5)
    for rows, to_rows in itertools.product(
        [1, 2, 3, 17, 90, 128, 129], [1, 7, 90, 270, 720, 1024, 1025, 1080, 2160]
    ):
        places = (np.arange(to_rows, dtype=np.float32) + offset) * np.float32(step(rows, to_rows, align_corners))
        above = np.floor(places - offset)
        per_row, first, most = rows_between(rows, to_rows, align_corners)
        behind = np.arange(to_rows) - np.floor(np.float32(per_row) * above + np.float32(first))
        assert behind.min() >= 0
        assert behind.max() < most


def test_equal_logits_give_the_lowest_class():
    labels = UPSAMPLE_ARGMAX(torch.tensor([[[[1.0]], [[3.0]], [[3.0]]]]), [2, 2], False)
    assert labels.tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize(("align_corners", "expected"), [(False, [0, 0, 0, 1, 1, 1]), (True, [0, 0, 1, 1, 1, 1])])
def test_corners_are_aligned_as_asked(align_corners, expected):
    # The second class passes the first at 0.35 between the two columns.
    logits = torch.tensor([[[[0.35, 0.35]], [[0.0, 1.0]]]])
    assert UPSAMPLE_ARGMAX(logits, [1, 6], align_corners)[0, 0].tolist() == expected


def test_a_row_of_more_labels_than_a_block(answer_of_function):
    logits = torch.randn(1, 3, 2, 40, generator=torch.Generator().manual_seed(0))
    expected = UPSAMPLE_ARGMAX(logits, [3, 300], True)
    assert torch.equal(UPSAMPLE_ARGMAX.kernel(logits, [3, 300], True), expected)
    assert torch.equal(answer_of_function(UPSAMPLE_ARGMAX, logits, [3, 300], True), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_labels_are_those_of_pytorchs_upsampling(align_corners):
    logits = torch.randn(2, 19, 9, 17, generator=torch.Generator().manual_seed(0))
    full = F.interpolate(logits, (50, 100), mode="bilinear", align_corners=align_corners)
    assert torch.equal(UPSAMPLE_ARGMAX(logits, [50, 100], align_corners), full.argmax(1).to(torch.uint8))
