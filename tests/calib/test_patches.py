import numpy as np
import pytest
import torch
from onnx import helper
from torch.nn import functional as F

from roadseg.calib.patches import by_outputs, sample_patches, uneven_reason

ALL = 10_000


def products(node, weights, values, most=ALL):
    """What a layer gives, from its patches: `(outputs, positions)`."""
    kernel = weights.shape[2:] if "Conv" in node.op_type else ()
    patches = sample_patches(node, kernel, values, most, np.random.default_rng(0))
    rows = by_outputs(node, weights)
    rows = rows.reshape(*rows.shape[:2], -1)
    found = rows @ patches.transpose(0, 2, 1)
    return found.reshape(-1, found.shape[-1])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_patches_by_weights_are_a_convolution(rng, groups, stride, dilation):
    values = rng.normal(size=(1, 4, 7, 9)).astype(np.float32)
    weights = rng.normal(size=(8, 4 // groups, 3, 2)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], group=groups, strides=[stride] * 2, dilations=[dilation] * 2, pads=[1, 2, 1, 2]
    )
    expected = F.conv2d(
        torch.from_numpy(values), torch.from_numpy(weights),
        stride=stride, dilation=dilation, padding=(1, 2), groups=groups,
    )  # fmt: skip
    np.testing.assert_allclose(products(node, weights, values), expected[0].reshape(8, -1), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_patches_by_weights_are_a_transposed_convolution(rng, groups, stride, dilation):
    values = rng.normal(size=(1, 4, 5, 4)).astype(np.float32)
    weights = rng.normal(size=(4, 3, 3, 2)).astype(np.float32)
    extra = stride - 1
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], group=groups, strides=[stride] * 2, dilations=[dilation] * 2,
        pads=[1, 0, 1, 0], output_padding=[extra] * 2,
    )  # fmt: skip
    expected = F.conv_transpose2d(
        torch.from_numpy(values), torch.from_numpy(weights), stride=stride, dilation=dilation,
        padding=(1, 0), output_padding=extra, groups=groups,
    )  # fmt: skip
    np.testing.assert_allclose(products(node, weights, values), expected[0].reshape(3 * groups, -1), atol=1e-5)


def test_pads_of_one_side_shift_the_map():
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[0, 1, 0, 0])
    values = np.array([1, 2, 3], np.float32).reshape(1, 1, 1, 3)
    weights = np.array([1, 10], np.float32).reshape(1, 1, 1, 2)
    assert products(node, weights, values).tolist() == [[10, 21, 32]]


@pytest.mark.parametrize(("operator", "attributes"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
def test_rows_by_weights_are_a_matrix_product(rng, operator, attributes):
    values, weights = rng.normal(size=(5, 3)), rng.normal(size=(3, 2))
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    stored = weights.T if attributes else weights
    np.testing.assert_allclose(products(node, stored, values), (values @ weights).T)


def test_no_more_positions_are_taken_than_asked_for_and_each_once(rng):
    values = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    seen = products(node, np.ones((1, 1, 1, 1), np.float32), values, most=7)[0]
    assert len(set(seen)) == 7
    assert set(seen) <= set(range(20))


def test_layers_that_are_not_taken_apart_say_why():
    assert uneven_reason(helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")) == "it pads by a rule"
    assert uneven_reason(helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="NOTSET")) == ""
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], output_shape=[4, 4])
    assert uneven_reason(node) == "it pads to a shape"
    assert uneven_reason(helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)) == "its input is transposed"
