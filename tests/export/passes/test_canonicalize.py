import numpy as np
import onnx
import onnx_ir as ir

from roadseg.export.passes import Canonicalize

WEIGHT = np.ones((2, 2, 1, 1), np.float32)
BODY = {
    "a": '["/stem/Conv"] a = Conv(x, w)',
    "b": '["/stem/Relu"] b = Relu(a)',
    "c": '["/head/Relu"] c = Relu(x)',
    "dead": '["/head/Dead"] dead = Sigmoid(a)',
    "y": '["/head/Add"] y = Add(b, c)',
}


def model_of(graph, order):
    text = " ".join(BODY[name] for name in order)
    return graph(f"g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ {text} }}", w=WEIGHT)


def canonical(model):
    return ir.to_proto(Canonicalize()(model)[0])


def test_the_order_of_the_nodes_does_not_matter(graph):
    one = canonical(model_of(graph, ["a", "b", "c", "dead", "y"]))
    other = canonical(model_of(graph, ["c", "a", "dead", "b", "y"]))
    assert [node.name for node in one.graph.node] == ["/stem/Conv", "/stem/Relu", "/head/Relu", "/head/Add"]
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def test_a_second_node_of_a_module_gets_a_number(graph):
    model = canonical(graph('g (float[2] x) => (float[2] y) { ["/m/Relu_7"] a = Relu(x) ["/m/q"] y = Relu(a) }'))
    assert [(node.name, *node.output) for node in model.graph.node] == [("/m/Relu", "/m/Relu"), ("/m/Relu_1", "y")]


def test_a_node_without_a_name_belongs_to_the_module_before_it(graph):
    model = canonical(graph('g (float[2] x) => (float[2] y) { ["/m/n/Relu"] a = Relu(x) y = Exp(a) }'))
    assert model.graph.node[1].name == "/m/n/Exp"


def test_further_outputs_have_a_name_of_their_own(graph):
    model = canonical(
        graph(
            """g (float[4] x) => (float[2] y)
            { ["/m/Split"] a, b = Split<axis=0, num_outputs=2>(x) ["/m/Sub"] y = Sub(b, a) }"""
        )
    )
    assert list(model.graph.node[1].input) == ["/m/Split_output_1", "/m/Split"]


def test_a_weight_is_called_after_its_first_use(graph):
    model = canonical(model_of(graph, ["a", "b", "c", "y"]))
    assert [weight.name for weight in model.graph.initializer] == ["/stem/Conv.W"]


def test_a_weight_without_use_is_dropped(graph):
    model = graph("g (float[1] x) => (float[1] y) { y = Relu(x) }", w=WEIGHT)
    assert not canonical(model).graph.initializer


def test_constants_become_weights(graph):
    model = canonical(
        graph('g (float[2] x) => (float[2] y) { c = Constant<value_floats=[1.0, 2.0]>() ["/Add"] y = Add(x, c) }')
    )
    assert [weight.name for weight in model.graph.initializer] == ["/Add.B"]


def test_a_branch_keeps_what_it_reads_from_outside(graph, run):
    model = graph(
        """g (bool c, float[2] x) => (float[2] y) {
            ["/m/Exp"] e = Exp(x)
            y = If(c) <
                then_branch = t () => (float[2] p) { p = Add(e, w) },
                else_branch = f () => (float[2] q) { q = Sub(e, w) }
            >
        }""",
        w=np.array([1.0, 2.0], np.float32),
    )
    model, _ = Canonicalize()(model)
    zeros = np.zeros(2, np.float32)
    np.testing.assert_allclose(run(model, np.array(True), zeros), [2, 3])
    np.testing.assert_allclose(run(model, np.array(False), zeros), [0, -1])


def test_what_the_exporter_noted_is_gone(graph):
    model = ir.to_proto(model_of(graph, ["a", "b", "c", "y"]))
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = "File /home/me/net.py, line 3"
    for owner in (model, model.graph, model.graph.node[0], model.graph.value_info[0]):
        owner.metadata_props.add(key="stack", value="File /home/me/net.py, line 3")
    assert b"/home/me" not in canonical(ir.from_proto(model)).SerializeToString()


def test_a_second_time_changes_nothing(graph):
    model, changed = Canonicalize()(model_of(graph, ["c", "a", "b", "y"]))
    assert changed
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    model, changed = Canonicalize()(model)
    assert not changed
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
