import numpy as np
import pytest

from roadseg.export.passes import SignBeforeNorm

rng = np.random.default_rng(0)


def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)


FACTOR = "mean = ReduceMean(a, last) factor = Reshape(mean, column)"


@pytest.fixture
def normed(graph):
    """A function that makes the norm of `product`, with x in 3 groups of 2 channels and what `body` computes."""

    def make(body=FACTOR, product="Mul(factor, groups)", y="flat", epsilon=1e-12):
        return graph(
            f"""g (float[n,6,5,7] x, float[n,3,4] a) => (float[n,6,5,7] y)
            {{ groups = Reshape(x, grouped) {body} product = {product} rows = Reshape(product, rowed)
               normed = InstanceNormalization<epsilon={epsilon}>(rows, scale, shift) flat = Reshape(normed, size)
               y = Identity({y}) }}""",
            last=np.array([2]),
            column=np.array([0, 3, 1, 1, 1]),
            grouped=np.array([0, 3, 2, 5, 7]),
            rowed=np.array([0, 3, -1]),
            size=np.array([0, 6, 5, 7]),
            scale=values(3),
            shift=values(3),
            fixed=values(1, 3, 1, 1, 1),
            one=np.array([0, 1, 1, 1, 1]),
        )

    return make


def shift_of(model):
    """What the norm adds, for each of 6 channels."""
    return model.graph.initializers["shift"].const_value.numpy().repeat(2)[:, None, None]


@pytest.mark.parametrize("product", ["Mul(factor, groups)", "Mul(groups, factor)"])
def test_only_the_sign_of_a_groups_factor_is_left_right_behind_what_computes_it(normed, run, ops, product):
    model = normed(product=product)
    inputs = values(2, 6, 5, 7), values(2, 3, 4)
    before = run(model, *inputs)
    model, changed = SignBeforeNorm()(model)
    assert changed
    assert ops(model)[:5] == ["Reshape", "ReduceMean", "Sign", "Reshape", "Mul"]
    np.testing.assert_allclose(run(model, *inputs), before, rtol=0, atol=1e-5)
    assert SignBeforeNorm()(model)[1] is False


def test_a_group_norm_of_later_opsets_has_groups_of_its_own(graph, run, ops):
    model = graph(
        """g (float[2,6,5,7] x, float[2,3,1,1,1] a) => (float[2,6,5,7] y)
        { factor = Tanh(a) groups = Reshape(x, grouped) product = Mul(groups, factor) maps = Reshape(product, size)
          y = GroupNormalization<num_groups=3, epsilon=1e-12>(maps, scale, shift) }""",
        grouped=np.array([2, 3, 2, 5, 7]),
        size=np.array([2, 6, 5, 7]),
        scale=values(6),
        shift=values(6),
    )
    model.opset_imports[""] = 21
    inputs = values(2, 6, 5, 7), values(2, 3, 1, 1, 1)
    before = run(model, *inputs)
    model, changed = SignBeforeNorm()(model)
    assert changed
    assert ops(model) == ["Tanh", "Reshape", "Sign", "Mul", "Reshape", "GroupNormalization"]
    np.testing.assert_allclose(run(model, *inputs), before, rtol=0, atol=1e-5)


def test_a_factor_of_zero_leaves_what_the_norm_adds(normed, run):
    model, _ = SignBeforeNorm()(normed())
    y = run(model, values(1, 6, 5, 7), np.zeros((1, 3, 4), np.float32))
    np.testing.assert_array_equal(y[0], np.broadcast_to(shift_of(model), (6, 5, 7)))


@pytest.mark.parametrize("factor", [0.5, -3.0])
def test_the_change_is_within_the_bound_where_epsilon_is_large(normed, run, factor):
    epsilon = 0.01
    model = normed(epsilon=epsilon)
    inputs = values(1, 6, 5, 7), np.full((1, 3, 4), factor, np.float32)
    before = run(model, *inputs) - shift_of(model)
    model, _ = SignBeforeNorm()(model)
    change = np.abs(run(model, *inputs) - shift_of(model) - before)
    variance = inputs[0].reshape(3, -1).var(axis=1).repeat(2)[:, None, None]
    assert (change <= abs(1 - 1 / factor**2) * epsilon / variance * np.abs(before) + 1e-6).all()
    assert change.max() > 0.001


@pytest.mark.parametrize(
    ("body", "product", "y"),
    [
        ("", "Mul(fixed, groups)", "flat"),
        ("factor = Reshape(fixed, column)", "Mul(factor, groups)", "flat"),
        ("mean = ReduceMean(x, last) part = ReduceMean(groups, last)", "Mul(part, groups)", "flat"),
        ("mean = ReduceMean(a) factor = Reshape(mean, one)", "Mul(factor, groups)", "flat"),
        (FACTOR, "Add(factor, groups)", "flat"),
        (FACTOR + " other = Mul(factor, groups)", "Mul(other, groups)", "flat"),
        (FACTOR, "Mul(factor, groups) again = Reshape(product, size)", "again"),
    ],
    ids=[
        "a constant",
        "a constant reshaped",
        "a factor for each position",
        "one factor for all groups",
        "a sum",
        "a factor further away",
        "a product with another use",
    ],
)
def test_what_would_change_the_answer_stays(normed, ops, body, product, y):
    model = normed(body, product, y)
    before = ops(model)
    model, changed = SignBeforeNorm()(model)
    assert not changed
    assert ops(model) == before


def test_galdnet_answers_as_before(network_before, run, ops):
    model, image = network_before("galdnet_r50", SignBeforeNorm)
    before = run(model, image)
    model, changed = SignBeforeNorm()(model)
    assert changed
    assert ops(model).count("Sign") == 1
    np.testing.assert_allclose(run(model, image), before, rtol=0, atol=1e-5 * np.abs(before).max())
