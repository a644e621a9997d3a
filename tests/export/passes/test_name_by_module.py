import onnx_ir as ir
import pytest

from roadseg.export.passes import NameByModule
from roadseg.export.passes.name_by_module import SCOPES


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        (["", "logits", "logits.net", "logits.net.ppm", "logits.net.ppm.conv1", "conv2d_3"], "/ppm/conv1/Relu"),
        (["", "logits", "logits.net", "add"], "/Relu"),
        (["", "logits", "upsample"], "/logits/Relu"),
        (["", "argmax"], "/Relu"),
        (["", "logits", "logits.network", "x"], "/logits/network/Relu"),
    ],
)
def test_a_node_is_called_after_its_module(graph, scopes, name):
    model = graph("g (float[2] x) => (float[2] y) { a = Relu(x) y = Exp(a) }")
    model.graph[0].metadata_props[SCOPES] = str(scopes)
    model, changed = NameByModule("logits.net")(model)
    assert changed
    assert model.graph[0].name == f"{name}#0"
    assert model.graph.outputs[0].name == "y"


def test_values_that_torch_gives_one_name_are_told_apart(graph):
    model = graph("g (float[2] x) => (float[2] y) { a = Relu(x) b = Relu(a) y = Exp(b) }")
    for node in model.graph:
        node.metadata_props[SCOPES] = "['', 'relu']"
        node.outputs[0].name = "y" if node.outputs[0].is_graph_output() else "mean"
    NameByModule("net")(model)
    names = [node.outputs[0].name for node in model.graph]
    assert len(set(names)) == 3


def test_a_graph_from_elsewhere_keeps_its_names(graph):
    model, changed = NameByModule("net")(graph("g (float[2] x) => (float[2] y) { [mine] y = Relu(x) }"))
    assert not changed
    assert isinstance(model, ir.Model)
    assert model.graph[0].name == "mine"
