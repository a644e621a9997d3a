import numpy as np
import onnx
import pytest

from roadseg.calib.graph import Graph, lift_constants
from roadseg.runtime import CalibrationError


def test_multiply_accumulates_are_counted_by_hand(graph):
    model = graph(
        """g (float[1,4,10,6] x) => (float[1,5] y) {
            strided = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w3x3)
            depthwise = Conv<group=8>(strided, w_depthwise)
            larger = ConvTranspose<strides=[2,2]>(depthwise, w_up)
            mean = GlobalAveragePool(larger)
            vector = Flatten(mean)
            hidden = Gemm<transB=1>(vector, w_gemm)
            y = MatMul(hidden, w_matmul)
            pooled = MatMul(rows, x)
            turned = Transpose<perm=[0,1,3,2]>(pooled)
            product = MatMul(pooled, turned)
            weighed = MatMul(x, weights)
        }""",
        w3x3=(8, 4, 3, 3),
        w_depthwise=(8, 1, 1, 1),
        w_up=(8, 2, 2, 2),
        w_gemm=(7, 2),
        w_matmul=(7, 5),
        rows=(3, 10),
        weights=(6,),
    )
    assert Graph(model).layer_macs() == {
        "strided": 8 * 5 * 3 * 4 * 9,
        "depthwise": 8 * 5 * 3,
        "larger": 8 * 5 * 3 * 2 * 4,
        "hidden": 7 * 2,
        "y": 7 * 5,
        "pooled": 4 * 3 * 6 * 10,
        "product": 4 * 3 * 3 * 6,
        "weighed": 0,
    }


def test_first_layers_read_the_input_through_no_other(graph):
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z) {
            scaled = Mul(x, factor)
            a = Conv(scaled, w1)
            pooled = AveragePool<kernel_shape=[1,1]>(x)
            b = Conv(pooled, w2)
            sum = Add(a, x)
            y = Conv(sum, w3)
            z = Conv(b, w4)
        }""",
        factor=np.array(2, np.float32),
        **{f"w{i}": (4, 4, 1, 1) for i in range(1, 5)},
    )
    assert Graph(model).first_layers() == {"a", "b"}


def test_an_open_batch_counts_as_one_frame(graph):
    model = graph("g (float[N,4,10,6] x) => (float[N,8,10,6] y) { y = Conv(x, w) }", w=(8, 4, 1, 1))
    assert Graph(model).layer_macs() == {"y": 8 * 4 * 60}


def test_weights_in_constant_nodes_become_initialisers(graph):
    model = graph(
        "g (float[2,2] x) => (float[2,2] y) { w = Constant<value = float[2,2] {1,2,3,4}>() y = MatMul(x, w) }"
    )
    lift_constants(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert Graph(model).has_weights(model.graph.node[0])
    onnx.checker.check_model(model, full_check=True)


def test_control_flow_is_refused(graph):
    model = graph(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If(c) <then_branch = a () => (float[2] p) { p = Relu(x) },
                       else_branch = b () => (float[2] q) { q = Neg(x) }>
        }"""
    )
    with pytest.raises(CalibrationError, match='If "y" holds a graph of its own'):
        Graph(model)


def test_contradicting_shapes_are_refused(graph):
    model = graph("g (float[2,3] x) => (float[2,5] y) { y = MatMul(x, w) }", w=(4, 5))
    with pytest.raises(CalibrationError, match="contradict each other"):
        Graph(model)
