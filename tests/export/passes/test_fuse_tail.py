import numpy as np
import pytest

from roadseg.export.passes import AttachFunctions, FuseTail

SIZES = np.array([2, 3, 5, 7])


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def tail(resize="", argmax="axis=1, keepdims=0", to=2, more=""):
    """A graph that ends as a model does, apart from what is asked for."""
    return f"""g (float[2,3,2,4] logits) => (uint8[2,5,7] labels)
    {{ full = Resize<mode="linear"{resize}>(logits, , , sizes)
       best = ArgMax<{argmax}>(full) labels = Cast<to={to}>(best) {more} }}"""


@pytest.mark.parametrize("transformation", ["half_pixel", "align_corners"])
def test_upsampling_and_argmax_become_one_operator(graph, run, ops, transformation):
    model = graph(tail(f', coordinate_transformation_mode="{transformation}"'), sizes=SIZES)
    before = run(model, values(2, 3, 2, 4))
    model, changed = FuseTail()(model)
    model, _ = AttachFunctions()(model)
    assert changed
    assert ops(model) == ["UpsampleArgmax"]
    np.testing.assert_array_equal(run(model, values(2, 3, 2, 4)), before)


@pytest.mark.parametrize(
    "text",
    [
        tail(', coordinate_transformation_mode="asymmetric"'),
        tail(", antialias=1"),
        tail().replace('"linear"', '"nearest"'),
        tail(argmax="axis=1, keepdims=0, select_last_index=1"),
        tail(to=3).replace("uint8", "int8"),
        tail(more="unread = Neg(full)").replace("labels)", "labels, float[2,3,5,7] unread)"),
    ],
    ids=["asymmetric", "antialiased", "nearest", "the last of equals", "int8", "read by others"],
)
def test_what_the_operator_does_not_compute_is_left(graph, ops, text):
    model = graph(text, sizes=SIZES)
    before = ops(model)
    model, changed = FuseTail()(model)
    assert not changed
    assert ops(model) == before
