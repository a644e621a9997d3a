import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from roadseg.export.passes import LowerAdaptivePool
from roadseg.export.passes.lower_adaptive_pool import pool_matrix
from roadseg.runtime import ExportError


def test_windows_overlap_where_the_bins_do_not_divide():
    third, half = 1 / 3, 1 / 2
    np.testing.assert_allclose(
        pool_matrix(5, 3),
        [[half, half, 0, 0, 0], [0, third, third, third, 0], [0, 0, 0, half, half]],
    )


sizes = st.integers(1, 70)
bins = st.integers(1, 12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(sizes, sizes, bins, bins)
def test_two_matrix_products_are_adaptive_average_pooling(rows, columns, row_bins, column_bins):
    x = np.random.default_rng(rows * columns).standard_normal((2, rows, columns)).astype(np.float32)
    expected = F.adaptive_avg_pool2d(torch.from_numpy(x), (row_bins, column_bins)).numpy()
    a, b = (pool_matrix(s, k).astype(np.float32) for s, k in ((rows, row_bins), (columns, column_bins)))
    np.testing.assert_allclose(a @ x @ b.T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("bins", "expected_ops"),
    [
        ((1, 1), ["ReduceMean"]),
        ((3, 2), ["AveragePool"]),
        ((9, 14), ["AveragePool"]),
        ((5, 3), ["MatMul", "MatMul"]),
        ((1, 4), ["MatMul", "MatMul"]),
        ((20, 14), ["MatMul", "MatMul"]),
    ],
)
def test_the_cheapest_exact_form_is_chosen(graph, run, ops, bins, expected_ops):
    model = graph(
        f"""g (float[n,2,9,14] x) => (float[n,2,{bins[0]},{bins[1]}] y)
        {{ [pool] y = roadseg.AdaptiveAveragePool<output_size=[{bins[0]},{bins[1]}]>(x) }}"""
    )
    model, changed = LowerAdaptivePool()(model)
    x = np.random.default_rng(0).standard_normal((3, 2, 9, 14)).astype(np.float32)
    assert changed
    assert ops(model) == expected_ops
    expected = F.adaptive_avg_pool2d(torch.from_numpy(x), bins).numpy()
    np.testing.assert_allclose(run(model, x), expected, rtol=0, atol=1e-6)


def test_a_map_without_a_fixed_size_is_refused(graph):
    model = graph(
        """g (float[1,2,h,w] x) => (float[1,2,3,3] y)
        { [pool] y = roadseg.AdaptiveAveragePool<output_size=[3,3]>(x) }"""
    )
    with pytest.raises(ExportError, match="pool pools a map whose size changes from call to call"):
        LowerAdaptivePool()(model)


def test_a_graph_without_pools_stays_as_it_is(graph, ops):
    model, changed = LowerAdaptivePool()(graph("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
    assert not changed
    assert ops(model) == ["Relu"]
