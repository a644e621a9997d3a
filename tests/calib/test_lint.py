"""Quantised graphs made by hand, each with one fault, which the lint must name."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from roadseg import engines
from roadseg.calib.cache import Ranges
from roadseg.calib.lint import lint, lint_model
from roadseg.calib.placement import place
from roadseg.calib.qdq import insert_qdq
from roadseg.calib.ranges import Collector
from roadseg.runtime import ArtifactError, CalibrationError, ModelSpec
from roadseg.runtime.onnxfile import (
    PRECISION_KEY,
    PROVENANCE_KEY,
    SPEC_KEY,
    onnx_spec,
    save_onnx,
    set_metadata,
)

CONSTANTS = {
    "s": np.array(0.1, np.float32),
    "s2": np.array(0.2, np.float32),
    "z": np.array(0, np.int8),
    "four": np.full(4, 0.1, np.float32),
    "w": np.ones((4, 4, 1, 1), np.int8),
    "float_w": np.ones((4, 4, 1, 1), np.float32),
    "sizes": np.array([1, 4, 16, 16], np.int64),
}
WEIGHTS = "wd = DequantizeLinear<axis=0>(w, four)"
INPUT = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"


@pytest.fixture
def findings(graph):
    """What is found in a graph from `x` to `y`, as node, side and cause."""

    def find(body, inputs="float[1,4,8,8] x", output="float[1,4,8,8] y", **constants):
        model = graph(f"g ({inputs}) => ({output}) {{ {body} }}", **CONSTANTS, **constants)
        return [(finding.node, finding.side, finding.cause) for finding in lint_model(model).findings]

    return find


def test_a_layer_in_int8_all_around_has_nothing_to_say(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd)
        norm = BatchNormalization(conv, four, four, four, four)
        relu = Relu(norm)
        rq = QuantizeLinear(relu, s, z)
        y = DequantizeLinear(rq, s, z)"""
    assert findings(body) == []


def test_the_classifier_says_that_labels_need_its_float_result(findings):
    assert findings(f"{INPUT} {WEIGHTS} y = Conv(xd, wd)") == [
        ('Conv "y"', "output", 'its result is the output "y"'),
    ]


def test_a_layer_that_nobody_quantised_is_found(findings):
    body = f"{INPUT} {WEIGHTS} first = Conv(xd, wd) fq = QuantizeLinear(first, s, z) y = Conv(x, float_w)"
    assert findings(body, output="float[1,4,8,8] y, int8[1,4,8,8] fq")[-1] == (
        'Conv "y"',
        "input",
        "neither its input nor its weights are quantised",
    )


def test_a_layer_of_one_position_is_told_from_one_that_was_forgotten(findings):
    body = f"{INPUT} {WEIGHTS} mean = GlobalAveragePool(xd) y = Conv(mean, float_w)"
    assert findings(body, output="float[1,4,1,1] y") == [
        ('Conv "y"', "input", "neither input nor weights are quantised; its map is a single position"),
    ]


def test_weights_left_float_are_found(findings):
    assert findings(f"{INPUT} y = Conv(xd, float_w)") == [
        ('Conv "y"', "weights", "its input is quantised, its weights are not"),
    ]


def test_computed_weights_are_found(findings):
    inputs = "float[1,4,8,8] x, float[4,4,1,1] k"
    assert findings(f"{INPUT} y = Conv(xd, k)", inputs) == [
        ('Conv "y"', "input", "both its factors are computed, and one of them is float"),
    ]


def test_an_input_left_float_is_found(findings):
    assert findings(f"{WEIGHTS} a = Sigmoid(x) y = Conv(a, wd)") == [
        ('Conv "y"', "input", "its weights are quantised, its input is not"),
    ]


def test_a_resize_between_a_pair_and_its_layer_is_named(findings):
    body = f'{INPUT} {WEIGHTS} up = Resize<mode="nearest">(xd, , , sizes) relu = Relu(up) y = Conv(relu, wd)'
    assert findings(body, output="float[1,4,16,16] y") == [
        ('Conv "y"', "input", 'Resize "up" stands between its Q/DQ and it'),
    ]


def test_pooling_by_maximum_parts_neither_a_layer_from_its_input_nor_from_its_output(findings):
    body = f"""{INPUT} {WEIGHTS}
        top = MaxPool<kernel_shape=[2,2], strides=[2,2]>(xd)
        conv = Conv(top, wd)
        turned = Transpose<perm=[0,2,3,1]>(conv)
        tq = QuantizeLinear(turned, s, z)
        y = DequantizeLinear(tq, s, z)"""
    assert findings(body, output="float[1,4,4,4] y") == []


def test_readers_behind_a_pool_count(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd)
        top = MaxPool<kernel_shape=[1,1]>(conv)
        y = Sigmoid(top)"""
    assert findings(body) == [('Conv "conv"', "output", 'its result is read as float by Sigmoid "y"')]


def test_a_product_of_two_computed_maps_is_no_fault_of_its_weights(findings):
    body = f"{INPUT} y = MatMul(x, x)"
    assert findings(body) == [('MatMul "y"', "input", "both its factors are computed, and float")]


def test_pooling_by_a_matrix_is_told_even_where_its_map_is_quantised(findings):
    body = f"{INPUT} y = MatMul(rows, xd)"
    assert findings(body, output="float[1,4,2,8] y", rows=(2, 8)) == [
        ('MatMul "y"', "input", "it resamples a map by a constant matrix in float"),
    ]


@pytest.mark.parametrize(("axis", "wrong"), [(0, False), (1, True)])
def test_weights_in_front_of_the_map_have_a_scale_for_each_row(findings, axis, wrong):
    body = f"{INPUT} wd = DequantizeLinear<axis={axis}>(rows, some) y = MatMul(wd, xd)"
    scales = np.ones(8 if wrong else 2, np.float32)
    found = findings(body, output="float[1,4,2,8] y", rows=np.ones((2, 8), np.int8), some=scales)
    assert [side for _, side, _ in found] == ["weights"] * wrong + ["output"]


def test_a_batch_of_constant_matrices_is_told_from_a_layer_that_was_forgotten(findings):
    body = f"{INPUT} first = Sigmoid(xd) y = MatMul(first, bases)"
    assert findings(body, "float[4,8,8] x", "float[4,8,3] y", bases=(1, 8, 3)) == [
        ('MatMul "y"', "input", "it multiplies by a batch of constant matrices in float"),
    ]


def test_scales_along_the_input_channels_are_found(findings):
    body = f"{INPUT} wd = DequantizeLinear<axis=1>(w, four) y = Conv(xd, wd)"
    assert findings(body)[0] == (
        'Conv "y"',
        "weights",
        "its weights have a scale for each index of axis 1, its output channels are axis 0",
    )


def test_a_transposed_convolution_has_its_output_channels_second(findings):
    body = f"{INPUT} wd = DequantizeLinear<axis=1>(w, four) y = ConvTranspose(xd, wd)"
    assert [side for _, side, _ in findings(body)] == ["output"]


def test_a_quantised_bias_is_found(findings):
    body = f"{INPUT} {WEIGHTS} bd = DequantizeLinear(b, s, z) y = Conv(xd, wd, bd)"
    assert findings(body, b=np.ones(4, np.int8))[0] == (
        'Conv "y"',
        "bias",
        "its bias goes through DequantizeLinear",
    )


def test_readers_that_take_a_result_as_float_are_named(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd)
        relu = Relu(conv)
        rq = QuantizeLinear(relu, s, z)
        rd = DequantizeLinear(rq, s, z)
        gate = Sigmoid(relu)
        y = Mul(rd, gate)"""
    assert findings(body) == [('Conv "conv"', "output", 'its result is read as float too by Sigmoid "gate"')]


DOWN, UP = "Cast<to=10>", "Cast<to=1>"
"""To float16, and to float32."""


def test_casts_part_neither_a_layer_from_its_pair_nor_a_sum_nor_a_concatenation(findings):
    body = f"""{INPUT} {WEIGHTS} xh = {DOWN}(xd) wh = {DOWN}(wd)
        first = Conv(xh, wh)
        sum = Add(first, xh)
        relu = Relu(sum)
        rf = {UP}(relu) rq = QuantizeLinear(rf, s, z) rd = DequantizeLinear(rq, s, z) rh = {DOWN}(rd)
        both = Concat<axis=1>(rh, xh)
        bf = {UP}(both) bq = QuantizeLinear(bf, s, z)
        y = DequantizeLinear(bq, s, z)"""
    assert findings(body, output="float[1,8,8,8] y") == []


def test_readers_behind_casts_are_named_and_whether_they_read_float16(findings):
    body = f"{INPUT} {WEIGHTS} conv = Conv(xd, wd) half = {DOWN}(conv) gate = Sigmoid(half) y = {UP}(gate)"
    assert findings(body) == [('Conv "conv"', "output", 'its result is read as float16 by Sigmoid "gate"')]
    both = f"{body.removesuffix(f'y = {UP}(gate)')} full = {UP}(gate) y = Mul(conv, full)"
    assert findings(both) == [
        ('Conv "conv"', "output", 'its result is read as float by Sigmoid "gate", Mul "y"'),
    ]


def test_what_parts_a_pair_from_its_layer_is_named_behind_casts(findings):
    body = f"""{INPUT} {WEIGHTS} xh = {DOWN}(xd)
        up = Resize<mode="nearest">(xh, , , sizes)
        full = {UP}(up)
        y = Conv(full, wd)"""
    assert findings(body, output="float[1,4,16,16] y") == [
        ('Conv "y"', "input", 'Resize "up" stands between its Q/DQ and it'),
    ]


def test_an_activation_in_float16_behind_a_pair_of_its_own_is_found(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd)
        q = QuantizeLinear(conv, s, z) d = DequantizeLinear(q, s, z) half = {DOWN}(d)
        relu = Relu(half)
        y = {UP}(relu)"""
    cause = 'its Q/DQ stands before Relu "relu", which becomes a kernel of its own'
    assert findings(body) == [('Conv "conv"', "output", cause)]


def test_a_sum_in_float16_with_no_input_quantised_is_found(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd) half = {DOWN}(conv)
        gate = Sigmoid(half)
        first = Conv(xd, wd) fh = {DOWN}(first)
        sum = Add(fh, gate)
        y = {UP}(sum)"""
    assert ('Add "sum"', "sum") in [finding[:2] for finding in findings(body)]


@pytest.mark.parametrize(
    ("behind", "remedy"),
    [
        ("q = QuantizeLinear(up, s, z) y = DequantizeLinear(q, s, z)", "quantise in front of them too"),
        ("y = Sigmoid(up)", "nothing"),
    ],
)
def test_8_bits_in_front_of_a_resize_are_advised_only_where_8_bits_follow_it(graph, behind, remedy):
    body = f'{INPUT} {WEIGHTS} conv = Conv(xd, wd) up = Resize<mode="nearest">(conv, , , sizes) {behind}'
    model = graph(f"g (float[1,4,8,8] x) => (float[1,4,16,16] y) {{ {body} }}", **CONSTANTS)
    (finding,) = lint_model(model).findings
    assert finding.cause == 'its result is read as float by Resize "up"'
    assert remedy in finding.remedy


def test_a_result_with_two_scales_is_found(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd)
        aq = QuantizeLinear(conv, s, z) ad = DequantizeLinear(aq, s, z)
        bq = QuantizeLinear(conv, s2, z) bd = DequantizeLinear(bq, s2, z)
        y = Mul(ad, bd)"""
    assert findings(body) == [('Conv "conv"', "output", 'its result "conv" is quantised with different scales')]


def test_a_pair_between_convolution_and_activation_is_found(findings):
    body = f"""{INPUT} {WEIGHTS}
        conv = Conv(xd, wd)
        cq = QuantizeLinear(conv, s, z) cd = DequantizeLinear(cq, s, z)
        y = Relu(cd)"""
    assert findings(body) == [
        ('Conv "conv"', "output", 'its Q/DQ stands before Relu "y", which becomes a kernel of its own'),
    ]


RESIDUAL = f"""{INPUT} {WEIGHTS}
    conv = Conv(xd, wd)
    norm = BatchNormalization(conv, four, four, four, four)
    nq = QuantizeLinear(norm, s, z) nd = DequantizeLinear(nq, s, z)
    sum = Add({{}}, {{}})
    relu = Relu(sum)
    rq = QuantizeLinear(relu, s, z)
    y = DequantizeLinear(rq, s, z)"""


def test_a_residual_sum_with_one_quantised_side_is_right(findings):
    body = RESIDUAL.format("norm", "xd").replace(
        "nq = QuantizeLinear(norm, s, z) nd = DequantizeLinear(nq, s, z)", ""
    )
    assert findings(body) == []


def test_a_residual_sum_with_both_sides_quantised_is_found(findings):
    assert findings(RESIDUAL.format("nd", "xd")) == [
        ('Add "sum"', "sum", 'both its inputs are quantised, so that Conv "conv" cannot take it in'),
    ]


def test_a_residual_sum_with_neither_side_quantised_is_found(findings):
    body = RESIDUAL.format("norm", "x").replace(
        "nq = QuantizeLinear(norm, s, z) nd = DequantizeLinear(nq, s, z)", ""
    )
    assert findings(body) == [
        ('Add "sum"', "sum", 'neither of its inputs is quantised, so that Conv "conv" cannot take it in as INT8'),
    ]


CONCAT = f"""{INPUT}
    aq = QuantizeLinear(a, {{0}}, z) ad = DequantizeLinear(aq, {{0}}, z)
    both = Concat<axis=1>(xd, {{1}})
    bq = QuantizeLinear(both, {{2}}, z)
    y = DequantizeLinear(bq, {{2}}, z)"""
TWO = ("float[1,4,8,8] x, float[1,4,8,8] a", "float[1,8,8,8] y")


@pytest.mark.parametrize(("second", "behind", "scales"), [("s", "s2", 2), ("s2", "s", 2), ("s2", "s3", 3)])
def test_a_concatenation_with_different_scales_is_found(findings, second, behind, scales):
    cause = f"its inputs and its result have {scales} different scales, and each input is scaled anew"
    body = CONCAT.format(second, "ad", behind)
    assert findings(body, *TWO, s3=np.array(0.3, np.float32)) == [('Concat "both"', "concat", cause)]


def test_scales_of_one_value_are_one_scale_whatever_their_names(findings):
    assert findings(CONCAT.format("same", "ad", "s"), *TWO, same=np.array([0.1], np.float32)) == []


def test_a_concatenation_with_a_float_input_is_found(findings):
    assert findings(CONCAT.format("s", "a", "s"), *TWO) == [
        ('Concat "both"', "concat", "1 of its 2 inputs are float: a"),
    ]


def test_a_zero_point_other_than_0_is_found(findings):
    body = "q = QuantizeLinear(x, s, three) y = DequantizeLinear(q, s, three)"
    cause = "its zero point is other than 0, or unsigned"
    assert findings(body, three=np.array(3, np.int8)) == [
        ('QuantizeLinear "q"', "pair", cause),
        ('DequantizeLinear "y"', "pair", cause),
    ]


def test_unsigned_bytes_are_found(findings):
    body = "q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)"
    assert findings(body) == [('QuantizeLinear "q"', "pair", "it gives uint8, for want of a zero point")]


def test_a_scale_for_each_channel_of_an_activation_is_found(findings):
    body = "q = QuantizeLinear<axis=1>(x, four, zeros) y = DequantizeLinear<axis=1>(q, four, zeros)"
    cause = "a computed tensor has a scale for each channel"
    assert findings(body, zeros=np.zeros(4, np.int8)) == [
        ('QuantizeLinear "q"', "pair", cause),
        ('DequantizeLinear "y"', "pair", cause),
    ]


def test_half_a_pair_is_found_on_both_sides(findings):
    body = "q = QuantizeLinear(x, s, z) p = MaxPool<kernel_shape=[1,1]>(q) y = DequantizeLinear(p, s, z)"
    assert findings(body) == [
        ('QuantizeLinear "q"', "pair", 'MaxPool "p" reads its 8 bits without DequantizeLinear'),
        ('DequantizeLinear "y"', "pair", 'it reads MaxPool "p" and not a QuantizeLinear'),
    ]


def test_the_share_is_of_multiplications(graph):
    # 8x8 positions of 4x4 channels in INT8, 4x4 positions of 4x4 channels in float: 1024 to 256.
    model = graph(
        f"""g (float[1,4,8,8] x) => (float[1,4,4,4] y) {{
            {INPUT} {WEIGHTS}
            first = Conv(xd, wd)
            y = Conv<strides=[2,2]>(first, float_w)
        }}""",
        **CONSTANTS,
    )
    report = lint_model(model)
    assert (report.layers, report.int8_layers, report.mac_share) == (2, 1, 0.8)


def test_a_product_with_a_vector_is_a_layer_without_weight(graph):
    text = f"g (float[1,4,8,8] x, float[8] v) => (float[1,4,8] y) {{ {INPUT} y = MatMul(xd, v) }}"
    report = lint_model(graph(text, **CONSTANTS))
    assert (report.layers, report.int8_layers, report.mac_share) == (1, 0, 0.0)


def test_weights_may_be_stored_as_float_behind_a_pair_of_their_own(findings):
    body = f"""{INPUT}
        wq = QuantizeLinear<axis=0>(float_w, four, zeros)
        wd = DequantizeLinear<axis=0>(wq, four, zeros)
        y = Conv(xd, wd)"""
    assert [side for _, side, _ in findings(body, zeros=np.zeros(4, np.int8))] == ["output"]


def test_a_graph_as_onnxruntime_quantises_it_is_read():
    """Unsigned activations with a zero point, a bias of 32 bits, and Q/DQ of ONNX Runtime's own domain."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>
        g (float[1,4,8,8] x) => (float[1,4,4,4] y) {
            middle = Constant<value = uint8 {128}>()
            xq = com.microsoft.QuantizeLinear(x, s, middle)
            xd = com.microsoft.DequantizeLinear(xq, s, middle)
            wd = com.microsoft.DequantizeLinear<axis=0>(w, four, zeros)
            bd = com.microsoft.DequantizeLinear<axis=0>(b, four, wide_zeros)
            first = Conv(xd, wd, bd)
            y = Conv<strides=[2,2]>(first, float_w)
        }"""
    )
    constants = CONSTANTS | {"b": np.ones(4, np.int32), "zeros": np.zeros(4, np.int8)}
    for name, array in (constants | {"wide_zeros": np.zeros(4, np.int32)}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    report = lint_model(model)
    assert [(finding.node, finding.side) for finding in report.findings] == [
        ('QuantizeLinear "xq"', "pair"),
        ('DequantizeLinear "xd"', "pair"),
        ('Conv "first"', "bias"),
        ('Conv "first"', "output"),
        ('Conv "y"', "input"),
    ]
    # 8x8 positions of 4x4 channels in INT8, 4x4 positions of 4x4 channels in float: 1024 to 256.
    assert (report.layers, report.int8_layers, report.mac_share) == (2, 1, 0.8)


def test_a_model_with_nothing_quantised_is_refused(small):
    with pytest.raises(CalibrationError, match=r"has no DequantizeLinear: nothing in it is quantised"):
        lint(small)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"engine")
    with pytest.raises(ArtifactError, match="is not an ONNX model"):
        lint(tmp_path / "m.onnx")


@pytest.fixture(scope="module")
def quantized(fastscnn, scenes):
    """Fast-SCNN in INT8."""
    model = onnx.load(fastscnn)
    collector = Collector(model, onnx_spec(model, fastscnn), place(model), ["minmax"])
    collector.add(scenes(96, 128).frames[0])
    insert_qdq(model, collector.ranges("minmax"))
    return model


def copy_of(model):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def test_of_fast_scnn_every_layer_is_int8(quantized):
    report = lint_model(copy_of(quantized))
    assert [finding for finding in report.findings if finding.side != "output"] == []
    assert (report.layers, report.int8_layers) == (45, 45)


def test_spoilt_sums_and_a_spoilt_scale_of_fast_scnn_are_found(quantized):
    sums = [node for node in quantized.graph.node if node.op_type == "Add" and "/dq" in "".join(node.input)]
    assert len(sums) == 7  # six bottlenecks that skip, and the fusion
    model = copy_of(quantized)
    for node in model.graph.node:
        if node.op_type == "Add":
            for i, name in enumerate(node.input):
                node.input[i] = name.removesuffix("/dq")
    assert [f.side for f in lint_model(model).findings].count("sum") == len(sums)
    model = copy_of(quantized)
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    scale = concat.input[0].removesuffix("/dq") + "/scale"
    spoilt = next(tensor for tensor in model.graph.initializer if tensor.name == scale)
    spoilt.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(spoilt) * np.float32(2), scale))
    assert [f.side for f in lint_model(model).findings].count("concat") == 1


@pytest.fixture(scope="module")
def zoo():
    """A function that makes a network of the zoo an INT8 model of 128x256, with 1 for every range."""
    import onnx_ir as ir
    import torch

    from roadseg.calib.graph import lift_constants
    from roadseg.export.model import OPSET, passes
    from roadseg.export.trace import trace
    from roadseg.train import MODELS

    def make(name: str) -> onnx.ModelProto:
        torch.manual_seed(0)
        net = MODELS[name]().eval()
        spec = ModelSpec(name, 128, 256, align_corners=bool(getattr(net, "align_corners", False)))
        traced = trace(net, spec, 1, OPSET)
        for apply in passes(spec):
            traced, _ = apply(traced)
        model = ir.to_proto(traced)
        lift_constants(model)
        insert_qdq(model, Ranges(dict.fromkeys(place(model).activations, 1.0), "minmax"))
        set_metadata(model, {SPEC_KEY: spec.to_json(), PROVENANCE_KEY: "{}", PRECISION_KEY: "int8"})
        return model

    return make


@pytest.mark.parametrize("name", ["bisenetv2", "espnet", "ddrnet23_slim"])
def test_every_layer_of_networks_of_the_zoo_is_int8_and_they_build(zoo, name, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    save_onnx(tmp_path / "m.onnx", zoo(name))
    findings = [finding for finding in lint(tmp_path / "m.onnx").findings if finding.side != "output"]
    assert findings == []
    engines.build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")


def test_products_of_two_computed_maps_are_the_float_ones_of_segformer(zoo):
    # Eight blocks of attention with two products each: queries by keys, weights by values.
    report = lint_model(zoo("segformer_b0"))
    floats = [finding.cause for finding in report.findings if finding.side != "output"]
    assert floats == 16 * ["both its factors are computed, and float"]
    assert report.layers - report.int8_layers == 16
