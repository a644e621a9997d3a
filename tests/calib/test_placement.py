import pytest

from roadseg.calib.placement import place
from roadseg.runtime import CalibrationError

W = (4, 4, 1, 1)


def test_the_activation_is_quantised_and_nothing_between_convolution_and_activation(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            conv = Conv(x, w1)
            norm = BatchNormalization(conv, s, s, s, s)
            relu = Relu(norm)
            y = Conv(relu, w2)
        }""",
        w1=W,
        w2=W,
        s=(4,),
    )
    assert place(model).activations == ("x", "relu")


def test_of_a_residual_sum_only_the_branch_that_is_no_convolution_is_quantised(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            stem = Relu(x)
            inner = Conv(stem, w1)
            active = Relu(inner)
            branch = Conv(active, w2)
            norm = BatchNormalization(branch, s, s, s, s)
            sum = Add(norm, stem)
            relu = Relu(sum)
            y = Conv(relu, w3)
        }""",
        w1=W,
        w2=W,
        w3=W,
        s=(4,),
    )
    assert place(model).activations == ("stem", "active", "relu")


def test_of_two_convolutions_that_are_added_the_later_one_takes_the_sum_in(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            early = Conv(x, w1)
            late = Conv(x, w2)
            y = Add(late, early)
        }""",
        w1=W,
        w2=W,
    )
    assert place(model).activations == ("x", "early")


def test_a_convolution_that_others_read_too_cannot_take_the_sum_in(graph):
    model = graph(
        """g (float[1,4,8,8] x, float[1,4,8,8] z) => (float[1,4,8,8] y) {
            conv = Conv(x, w1)
            sum = Add(conv, z)
            other = Sigmoid(conv)
            y = Mul(sum, other)
        }""",
        w1=W,
    )
    assert place(model).activations == ("x",)


@pytest.mark.parametrize("other", ["bias", "column"])
def test_a_sum_with_a_constant_or_of_another_shape_is_no_residual(graph, other):
    model = graph(
        f"""g (float[1,4,8,8] x, float[1,4,1,1] column) => (float[1,4,8,8] y) {{
            conv = Conv(x, w1)
            y = Add(conv, {other})
        }}""",
        w1=W,
        bias=(1, 4, 8, 8),
    )
    assert place(model).activations == ("x",)


def test_concatenations_in_front_of_a_convolution_share_one_scale(graph):
    model = graph(
        """g (float[1,2,8,8] a, float[1,1,8,8] b, float[1,1,8,8] c) => (float[1,4,8,8] y, float[1,2,8,8] z) {
            inner = Concat<axis=1>(b, c)
            outer = Concat<axis=1>(a, inner)
            y = Conv(outer, w1)
            z = Concat<axis=1>(b, b)
        }""",
        w1=W,
    )
    placement = place(model)
    assert placement.groups == (frozenset({"a", "b", "c", "inner", "outer"}),)
    assert placement.activations == ("a", "b", "c", "inner", "outer")


def test_a_concatenation_that_no_convolution_reads_stays_as_it_is(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,8,8,8] y) {
            conv = Conv(x, w1)
            y = Concat<axis=1>(conv, x)
        }""",
        w1=W,
    )
    placement = place(model)
    assert placement.groups == ()
    assert placement.activations == ("x",)


def test_scales_run_along_the_output_channels_of_every_kind_of_layer(graph):
    model = graph(
        """g (float[1,4,2,2] x) => (float[1,3] y) {
            conv = Conv(x, w_conv)
            up = ConvTranspose(conv, w_up)
            vector = Flatten(up)
            rows = Gemm<transB=1>(vector, w_rows)
            columns = Gemm(rows, w_columns)
            y = MatMul(columns, w_matmul)
        }""",
        w_conv=W,
        w_up=(4, 2, 1, 1),
        w_rows=(5, 8),
        w_columns=(5, 6),
        w_matmul=(6, 3),
    )
    axes = {layer.output: layer.axis for layer in place(model).layers}
    assert axes == {"conv": 0, "up": 1, "rows": 0, "columns": 1, "y": 1}


def test_what_stays_float_says_why(graph):
    model = graph(
        """g (float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,8,8] y) {
            learned = Conv(x, w1)
            mean = GlobalAveragePool(learned)
            gate = Conv(mean, w2)
            scaled = Mul(learned, gate)
            y = Conv(scaled, w)
        }""",
        w1=W,
        w2=W,
    )
    reasons = {layer.title: layer.reason for layer in place(model).layers}
    assert reasons == {
        'Conv "learned"': "",
        'Conv "gate"': "",
        'Conv "y"': "its weights are not constant",
    }


def test_matrices_that_pool_are_layers_with_their_constant_on_either_side(graph):
    # What export makes of adaptive average pooling whose bins do not divide the map.
    model = graph(
        """g (float[1,4,12,15] x) => (float[1,4,6,6] y) {
            by_rows = MatMul(rows, x)
            by_columns = MatMul(by_rows, columns)
            y = Conv(by_columns, w1)
        }""",
        rows=(6, 12),
        columns=(15, 6),
        w1=W,
    )
    placement = place(model)
    assert placement.activations == ("x", "by_rows", "by_columns")
    assert [(layer.data, layer.weights, layer.axis) for layer in placement.layers] == [
        ("x", "rows", 0),
        ("by_rows", "columns", 1),
        ("by_columns", "w1", 0),
    ]
    assert [layer.reason for layer in placement.layers] == ["", "", ""]


def test_a_matrix_that_interpolates_leaves_the_sum_behind_it_to_the_convolution(graph):
    model = graph(
        """g (float[1,4,8,4] x, float[1,4,8,8] z) => (float[1,4,8,8] y) {
            lateral = Conv(z, w1)
            up = MatMul(x, columns)
            y = Add(lateral, up)
        }""",
        columns=(4, 8),
        w1=W,
    )
    assert place(model).activations == ("x", "z", "up")


def test_a_model_without_convolutions_is_refused(graph):
    with pytest.raises(CalibrationError, match="nothing in this model can run in INT8"):
        place(graph("g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Relu(x) }"))


def test_fast_scnn_runs_in_int8(fastscnn):
    import onnx

    placement = place(onnx.load(fastscnn))
    assert len(placement.layers) == 45
    assert len(placement.int8_outputs) == 45
    assert [len(group) for group in placement.groups] == [6]
