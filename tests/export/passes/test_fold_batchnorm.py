import numpy as np
import onnx_ir as ir
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


def test_each_part_of_a_concatenation_takes_its_channels_and_one_summand_the_shift(graph, run, ops):
    model = graph(
        """g (float[2,4,5,7] x) => (float[2,9,5,7] y)
        { a = Conv<pads=[1,1,1,1]>(x, wa, ba) b = Conv(x, wb) c = ConvTranspose<group=2>(x, wc)
          sum = Add(b, c) z = Concat<axis=1>(a, sum) y = BatchNormalization(z, gamma, beta, mean, var) }""",
        wa=weight(3, 4, 3, 3),
        ba=weight(3),
        wb=weight(6, 4, 1, 1),
        wc=weight(4, 3, 1, 1),
        **norm_weights(9),
    )
    x = weight(2, 4, 5, 7)
    before = run(model, x)
    model, changed = FoldBatchNorm()(model)
    assert changed
    assert ops(model) == ["Conv", "Conv", "ConvTranspose", "Add", "Concat"]
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, False)])
def test_a_convolution_without_padding_takes_the_norm_before_it(graph, run, ops, groups, bias):
    weights = {"w": weight(6, 4 // groups, 3, 3), **norm_weights(4)} | ({"b": weight(6)} if bias else {})
    model = graph(
        f"""g (float[2,4,5,7] x) => (float[2,6,3,5] y)
        {{ z = Relu(x) n = BatchNormalization(z, gamma, beta, mean, var)
           y = Conv<group={groups}>(n, w{", b" if bias else ""}) }}""",
        **weights,
    )
    x = weight(2, 4, 5, 7)
    before = run(model, x)
    model, changed = FoldBatchNorm()(model)
    assert changed
    assert ops(model) == ["Relu", "Conv"]
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "z = Relu(x) y = BatchNormalization(z, gamma, beta, mean, var)",
        "z = Conv(x, w) n = BatchNormalization(z, gamma, beta, mean, var) y = Mul(n, z)",
        "z = Conv(x, v) y = BatchNormalization(z, gamma, beta, mean, var)",
        "a = Conv(x, h) b = Relu(a) c = Conv(x, h) z = Concat<axis=1>(b, c) "
        "y = BatchNormalization(z, gamma, beta, mean, var)",
        "a = Conv(x, h) z = Concat<axis=1>(a, a) y = BatchNormalization(z, gamma, beta, mean, var)",
        "a = Conv(x, w) b = GlobalAveragePool(x) c = Conv(b, w) z = Add(a, c) "
        "y = BatchNormalization(z, gamma, beta, mean, var)",
        "z = Relu(x) n = BatchNormalization(z, gamma, beta, mean, var) y = Conv<pads=[1,1,1,1]>(n, k)",
        'z = Relu(x) n = BatchNormalization(z, gamma, beta, mean, var) y = Conv<auto_pad="SAME_UPPER">(n, k)',
        "z = Relu(x) n = BatchNormalization(z, gamma, beta, mean, var) c = Conv(n, w) y = Add(c, n)",
    ],
    ids=[
        "nothing linear before it",
        "its input has another use",
        "weights that are an input",
        "half of what is concatenated is not linear",
        "both halves are one map",
        "a summand is stretched to the other",
        "padding behind it",
        "automatic padding behind it",
        "its output has another use",
    ],
)
def test_a_batch_norm_stays_where_folding_would_change_the_answer(graph, ops, body):
    model = graph(
        f"g (float[2,4,5,7] x, float[4,4,1,1] v) => (float[2,4,5,7] y) {{ {body} }}",
        w=weight(4, 4, 1, 1),
        h=weight(2, 4, 1, 1),
        k=weight(4, 4, 3, 3),
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


@pytest.mark.parametrize(("name", "left"), [("bisenetv2", 0), ("espnet", 16), ("pidnet_s", 8)])
def test_networks_keep_only_norms_between_other_nodes(network_before, run, ops, name, left):
    model, image = network_before(name, FoldBatchNorm)
    before = run(model, image)
    model, changed = FoldBatchNorm()(model)
    assert changed
    assert ops(model).count("BatchNormalization") == left
    np.testing.assert_allclose(run(model, image), before, rtol=0, atol=1e-5 * np.abs(before).max())


def test_a_norm_that_stays_is_one_layer_in_tensorrt_where_a_product_and_a_sum_are_four(graph):
    trt = pytest.importorskip("tensorrt_rtx")
    norm, affine = (
        graph(
            f"g (float[2,4,5,7] x) => (float[2,4,5,7] y) {{ z = Relu(x) {body} }}",
            **norm_weights(4),
            scale=weight(1, 4, 1, 1),
            shift=weight(1, 4, 1, 1),
        )
        for body in ("y = BatchNormalization(z, gamma, beta, mean, var)", "m = Mul(z, scale) y = Add(m, shift)")
    )
    assert layers(trt, norm) == ["ACTIVATION", "SCALE"]
    assert layers(trt, affine) == ["ACTIVATION", "CONSTANT", "CONSTANT", "ELEMENTWISE", "ELEMENTWISE"]


def layers(trt, model):
    """Types of what TensorRT-RTX's parser makes of a model, sorted."""
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(ir.to_proto(model).SerializeToString())
    return sorted(network.get_layer(i).type.name for i in range(network.num_layers))
