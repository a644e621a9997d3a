import numpy as np
import pytest

from roadseg.export.passes.graph import constant, constant_array


@pytest.mark.parametrize(
    "array", [np.array(0.5), np.arange(6.0).reshape(2, 3).T], ids=["a number", "a transposed matrix"]
)
def test_a_constant_keeps_shape_and_values(graph, array):
    model = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    value = constant(model.graph, "c", array)
    assert tuple(value.shape) == constant_array(value).shape == array.shape
    np.testing.assert_array_equal(constant_array(value), array)


def test_a_name_that_is_taken_gets_a_number(graph):
    model = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    assert [constant(model.graph, "c", np.zeros(1)).name for _ in range(3)] == ["c", "c_1", "c_2"]
