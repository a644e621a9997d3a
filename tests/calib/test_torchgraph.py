import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from roadseg.calib.graph import Graph  # noqa: E402
from roadseg.calib.ranges import feed  # noqa: E402
from roadseg.calib.source import load_float_model  # noqa: E402
from roadseg.calib.torchgraph import TorchGraph, inlined, logits_of, tuned_constants  # noqa: E402
from roadseg.runtime import CalibrationError  # noqa: E402
from roadseg.runtime.onnxfile import onnx_spec  # noqa: E402


def answers(model, names, fed):
    """What ONNX Runtime gives for tensors of a model."""
    whole = inlined(model)
    known = {output.name for output in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(names, {model.graph.input[0].name: fed})


def test_fast_scnn_gives_the_same_logits_and_labels(fastscnn, scenes):
    model = load_float_model(fastscnn)
    spec = onnx_spec(model, fastscnn)
    logits, labels = logits_of(model), model.graph.output[0].name
    fed = feed(scenes(96, 128).frames[0], spec, 1)
    expected = answers(model, [logits, labels], fed)
    with torch.no_grad():
        found = TorchGraph(model, [logits, labels])(torch.from_numpy(fed))
    np.testing.assert_allclose(found[0].numpy(), expected[0], atol=1e-4 * np.abs(expected[0]).max())
    assert (found[1].numpy() == expected[1]).mean() > 0.9999


def test_weights_are_parameters_and_everything_else_is_not(small):
    model = load_float_model(small)
    net = TorchGraph(model, ["logits"])
    assert set(net.weights) == {"w1", "b1", "w2"}
    assert len(list(net.parameters())) == 3
    for name, tensor in net.weights.items():
        np.testing.assert_array_equal(
            tensor.detach().numpy(), onnx.numpy_helper.to_array(Graph(model).constants[name])
        )


def test_gradients_are_those_of_finite_differences(mobile):
    model = load_float_model(mobile)
    net = TorchGraph(model, ["logits"]).double()
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    (logits,) = net(images)
    logits.square().sum().backward()
    for tensor in net.weights.values():
        direction, tiny = torch.ones_like(tensor), 1e-6
        with torch.no_grad():
            tensor += tiny * direction
            above = net(images)[0].square().sum()
            tensor -= 2 * tiny * direction
            below = net(images)[0].square().sum()
            tensor += tiny * direction
        slope = ((above - below) / (2 * tiny)).item()
        assert slope == pytest.approx((tensor.grad * direction).sum().item(), rel=1e-4)


def test_a_matrix_that_resamples_a_map_is_not_tuned(graph):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,4,2] logits) {
            features = Conv(images, w)
            logits = MatMul(features, halve)
        }""",
        w=(2, 3, 1, 1),
        halve=np.repeat(np.eye(2, dtype=np.float32), 2, axis=0) / 2,
    )
    assert tuned_constants(Graph(model)) == {"w"}


def test_what_depends_on_no_weight_is_computed_once(graph):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,2,8,8] logits) {
            whole = Shape(images)
            size = Slice(whole, two, four, zero)
            features = Conv(images, w)
            doubled = Mul(size_known, twos)
            sizes = Concat<axis=0>(shape_known, doubled)
            logits = Resize<mode="linear">(features, , , sizes)
            unused = Add(size, size)
        }""",
        w=(2, 3, 1, 1),
        two=np.array([2]),
        four=np.array([4]),
        zero=np.array([0]),
        twos=np.array([2, 2]),
        size_known=np.array([4, 4]),
        shape_known=np.array([1, 2]),
    )
    net = TorchGraph(model, ["logits"])
    assert [step.node.op_type for step in net._steps] == ["Conv", "Resize"]
    images = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    with torch.no_grad():
        found = net(torch.from_numpy(images))[0].numpy()
    np.testing.assert_allclose(found, answers(model, ["logits"], images)[0], atol=1e-6)


FUNCTION = """<ir_version: 10, opset_import: ["" : 20, "roadseg" : 1]>
g (float[1,3,4,4] images) => (float[1,2,4,4] logits) {
    features = Conv(images, w)
    logits = roadseg.Halve(features)
}
<domain: "roadseg", opset_import: ["" : 20]>
Halve (x) => (y) {
    half = Constant<value=float {0.5}>()
    y = Mul(x, half)
}"""


def test_operators_that_are_functions_inside_the_model_are_taken_apart():
    model = onnx.parser.parse_model(FUNCTION)
    weights = np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    images = np.random.default_rng(1).random((1, 3, 4, 4), np.float32)
    with torch.no_grad():
        found = TorchGraph(model, ["logits"])(torch.from_numpy(images))[0].numpy()
    np.testing.assert_allclose(found[0, :, 0, 0], weights[:, :, 0, 0] @ images[0, :, 0, 0] / 2, rtol=1e-5)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Halve"]


def test_an_unknown_operator_is_refused_by_name(graph):
    model = graph(
        """g (float[1,3,4,4] images) => (float[1,3,4,4] logits) {
            active = Selu(images)
            pooled, places = MaxPool<kernel_shape=[1,1]>(active)
            logits = Conv(pooled, w)
        }""",
        w=(3, 3, 1, 1),
    )
    with pytest.raises(CalibrationError, match="does not know the operator Selu, MaxPool with its indices; calib"):
        TorchGraph(model, ["logits"])


def test_a_model_without_logits_has_nothing_to_learn_from(graph):
    model = graph("g (float[1,2,4,4] images) => (uint8[1,2,4,4] labels) { labels = Cast<to=2>(images) }")
    with pytest.raises(CalibrationError, match="labels do not come from an ArgMax over classes"):
        logits_of(model)
