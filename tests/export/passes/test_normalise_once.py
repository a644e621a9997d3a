import numpy as np
import pytest

from roadseg.export.passes import NormaliseOnce

rng = np.random.default_rng(0)
EPSILON = np.array(1e-6, np.float32)
"""Both of EMANet's."""


def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)


FITTING = """
    z = Softmax<axis=2>(energy)
    sums = ReduceSum<keepdims=1>(z, rows) divisor = Add(sums, e) shares = Div(z, divisor)
    means = MatMul(x, shares)
    lengths = ReduceL2<keepdims=1>(means, rows) length = Add(lengths, d)
"""


@pytest.fixture
def fitting(graph):
    """A function that makes 3 bases of 4 channels from 50 features, as `last` says."""

    def make(last="y = Div(means, length)", body=FITTING, **constants):
        return graph(
            f"g (float[2,4,50] x, float[2,50,3] energy) => (float[2,4,3] y) {{ {body} {last} }}",
            **{"rows": np.array([1]), "e": EPSILON, "d": EPSILON, **constants},
        )

    return make


def test_bases_are_normalised_once(fitting, run, ops):
    model = fitting()
    inputs = values(2, 4, 50), values(2, 50, 3)
    before = run(model, *inputs)
    model, changed = NormaliseOnce()(model)
    assert changed
    assert ops(model) == ["Softmax", "MatMul", "ReduceL2", "Add", "Div"]
    np.testing.assert_allclose(run(model, *inputs), before, rtol=0, atol=1e-5)


def test_a_basis_that_no_feature_wants_keeps_its_length_and_stays_zero_where_nothing_is_left_of_it(fitting, run):
    energy = np.zeros((2, 50, 3), np.float32)
    energy[0, :, 1], energy[1, :, 1] = -20, -200  # shares of 1e-9, and of 0
    x = 1 + np.abs(values(2, 4, 50))
    model = fitting()
    before = run(model, x, energy)
    model, _ = NormaliseOnce()(model)
    after = run(model, x, energy)
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-6)
    assert np.linalg.norm(after[0, :, 1]) > 0.99
    assert not after[1, :, 1].any()


def test_lengths_grow_within_the_bound_where_epsilons_are_large(fitting, run):
    e, d = np.array(0.5, np.float32), np.array(0.25, np.float32)
    x, energy = values(2, 4, 50), values(2, 50, 3)
    model = fitting(e=e, d=d)
    before = np.linalg.norm(run(model, x, energy), axis=1)
    model, _ = NormaliseOnce()(model)
    growth = np.linalg.norm(run(model, x, energy), axis=1) / before - 1
    z = np.exp(energy) / np.exp(energy).sum(axis=2, keepdims=True)
    means = x @ z / z.sum(axis=1, keepdims=True)
    assert (growth > 0.1).all()
    assert (growth <= d / np.linalg.norm(means, axis=1)).all()


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (FITTING.replace("Softmax<axis=2>", "Exp"), "y = Div(means, length)"),
        (FITTING.replace("ReduceSum<keepdims=1>(z,", "ReduceSum<keepdims=1>(energy,"), "y = Div(means, length)"),
        (FITTING.replace("ReduceSum", "ReduceMean"), "y = Div(means, length)"),
        (
            FITTING.replace("MatMul(x, shares)", 'Einsum<equation="nck,nkb->ncb">(x, shares)'),
            "y = Div(means, length)",
        ),
        (FITTING, "n = Div(means, length) y = Add(n, means)"),
        (FITTING, "n = Div(means, length) total = ReduceSum<keepdims=1>(shares, rows) y = Add(n, total)"),
        (FITTING, "n = Div(means, length) y = Mul(n, length)"),
    ],
    ids=[
        "weights that are no softmax",
        "a sum of something else",
        "a mean in place of a sum",
        "another product",
        "the product has another use",
        "the shares have another use",
        "the length has another use",
    ],
)
def test_what_would_change_the_answer_stays(fitting, ops, body, last):
    model = fitting(last, body)
    before = ops(model)
    model, changed = NormaliseOnce()(model)
    assert not changed
    assert ops(model) == before


@pytest.mark.parametrize(
    "constants",
    [{"rows": np.array([2])}, {"e": -EPSILON}, {"d": EPSILON.repeat(3)}],
    ids=["sums of rows", "a negative epsilon", "an epsilon for each column"],
)
def test_other_axes_and_epsilons_stay(fitting, constants):
    _, changed = NormaliseOnce()(fitting(**constants))
    assert not changed


def test_emanet_answers_as_before_with_half_the_divisions(network_before, run, ops):
    model, image = network_before("emanet_r101", NormaliseOnce)
    before = run(model, image)
    assert ops(model).count("Div") == 6
    model, changed = NormaliseOnce()(model)
    assert changed
    assert (ops(model).count("Div"), ops(model).count("ReduceSum")) == (3, 0)
    np.testing.assert_allclose(run(model, image), before, rtol=0, atol=1e-4 * np.abs(before).max())
    assert NormaliseOnce()(model)[1] is False
