import numpy as np
import pytest

from roadseg.export.passes import FoldBatchNorm

rng = np.random.default_rng(0)


def norm_weights(channels):
    """Scale, bias, mean and variance, none of them 0 or 1."""
    names = ("gamma", "beta", "mean", "var")
    return {name: rng.uniform(0.5, 2, channels).astype(np.float32) for name in names}


def weight(*shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("linear", "w", "bias"),
    [
        ("Conv<kernel_shape=[3,3], pads=[1,1,1,1]>", weight(6, 4, 3, 3), True),
        ("Conv<kernel_shape=[3,3], pads=[1,1,1,1]>", weight(6, 4, 3, 3), False),
        ("Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=2>", weight(6, 2, 3, 3), False),
        ("ConvTranspose<kernel_shape=[1,1]>", weight(4, 6, 1, 1), True),
        ("ConvTranspose<kernel_shape=[1,1], group=2>", weight(4, 3, 1, 1), False),
    ],
)
def test_a_batch_norm_disappears_in_a_convolution(graph, run, ops, linear, w, bias):
    weights = {"w": w, **norm_weights(6)} | ({"b": weight(6)} if bias else {})
    model = graph(
        f"""g (float[2,4,5,7] x) => (float[2,6,5,7] y)
        {{ z = {linear}(x, w{", b" if bias else ""})
           y = BatchNormalization<epsilon=0.1>(z, gamma, beta, mean, var) }}""",
        **weights,
    )
    x = weight(2, 4, 5, 7)
    before = run(model, x)
    model, changed = FoldBatchNorm()(model)
    assert changed
    assert ops(model) == [linear.partition("<")[0]]
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("transposed", "shape"), [(0, (4, 6)), (1, (6, 4))])
def test_a_batch_norm_disappears_in_a_matrix_product(graph, run, ops, transposed, shape):
    model = graph(
        f"""g (float[2,4] x) => (float[2,6] y)
        {{ z = Gemm<transB={transposed}, alpha=0.5>(x, w, b)
           y = BatchNormalization(z, gamma, beta, mean, var) }}""",
        w=weight(*shape),
        b=weight(6),
        **norm_weights(6),
    )
    x = weight(2, 4)
    before = run(model, x)
    model, changed = FoldBatchNorm()(model)
    assert changed
    assert ops(model) == ["Gemm"]
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "z = Relu(x) y = BatchNormalization(z, gamma, beta, mean, var)",
        "z = Conv(x, w) n = BatchNormalization(z, gamma, beta, mean, var) y = Mul(n, z)",
        "z = Conv(x, v) y = BatchNormalization(z, gamma, beta, mean, var)",
    ],
    ids=["nothing linear before it", "its input has another use", "weights that are an input"],
)
def test_a_batch_norm_stays_where_folding_would_change_the_answer(graph, ops, body):
    model = graph(
        f"g (float[2,4,5,7] x, float[4,4,1,1] v) => (float[2,4,5,7] y) {{ {body} }}",
        w=weight(4, 4, 1, 1),
        **norm_weights(4),
    )
    before = ops(model)
    model, changed = FoldBatchNorm()(model)
    assert not changed
    assert ops(model) == before


def test_a_weight_that_two_convolutions_share_is_not_scaled_for_both(graph, run):
    model = graph(
        """g (float[2,4,5,7] x) => (float[2,4,5,7] y)
        { z = Conv(x, w) n = BatchNormalization(z, gamma, beta, mean, var) m = Conv(x, w) y = Add(n, m) }""",
        w=weight(4, 4, 1, 1),
        **norm_weights(4),
    )
    x = weight(2, 4, 5, 7)
    before = run(model, x)
    model, changed = FoldBatchNorm()(model)
    assert changed
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=1e-5)
