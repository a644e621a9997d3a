import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from roadseg import export
from roadseg.calib.fp16 import FLOAT16_MAX, assign_types, cast_to_fp16
from roadseg.calib.graph import Graph
from roadseg.runtime import ModelSpec
from roadseg.train.models import randomise
from roadseg.train.models.danet import ChannelAttention
from roadseg.train.models.dgcnet import FeatureGraph
from roadseg.train.models.emanet import EMAttention
from roadseg.train.models.galdnet import CompactNonLocal
from roadseg.train.models.glore import GlobalReasoning

W = (8, 8, 1, 1)


def values_of(model, x):
    """Every tensor of a model for an input, each in its own type.

    Each node runs alone: between neighbours ONNX Runtime keeps float32 on a CPU, and nothing would overflow.
    """
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values[model.graph.input[0].name] = x
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for node in model.graph.node:
        feeds = {name: values[name] for name in node.input if name}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = helper.make_graph([node], "one", inputs, outputs)
        one = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        session = onnxruntime.InferenceSession(one.SerializeToString(), options, ["CPUExecutionProvider"])
        values |= zip(node.output, session.run(None, feeds), strict=True)
    return values


def answer(model, x):
    return values_of(model, x)[model.graph.output[0].name]


def float32_nodes(model):
    """Outputs of the nodes behind the first layer that stay float32."""
    half, _ = assign_types(Graph(model))
    return [node.output[0] for node in model.graph.node if node.output[0] not in half]


@pytest.fixture
def energies(graph):
    """DANet's attention between 8 channels, over 32x32 positions, between two layers."""
    return graph(
        """g (float[1,8,32,32] x) => (float[1,8,32,32] y) {
            map = Conv(x, w1)
            channels = Reshape(map, flat)
            positions = Transpose<perm=[0,2,1]>(channels)
            energy = MatMul(channels, positions)
            largest = ReduceMax(energy, last)
            difference = Sub(largest, energy)
            weights = Softmax(difference)
            gathered = MatMul(weights, channels)
            maps = Reshape(gathered, size)
            y = Conv(maps, w2)
        }""",
        w1=W,
        w2=W,
        flat=np.array([1, 8, -1]),
        size=np.array([1, 8, 32, 32]),
        last=np.array([-1]),
    )


def test_energies_of_channels_stay_float32_until_the_softmax_of_their_differences(energies):
    assert float32_nodes(energies) == ["energy", "largest", "difference", "weights"]
    _, kept = assign_types(Graph(energies))
    assert "overflow" in kept['MatMul "energy"']
    assert (
        kept['Sub "difference"']
        == "it reads what float16 cannot hold, and nothing has brought that back into range"
    )


def test_energies_beyond_float16_answer_as_in_float32(energies):
    x = np.random.default_rng(0).normal(0, 20, (1, 8, 32, 32)).astype(np.float32)
    exact = values_of(energies, x)
    assert exact["energy"].max() > FLOAT16_MAX
    cast_to_fp16(energies)
    np.testing.assert_allclose(answer(energies, x), exact["y"], rtol=0, atol=2e-3 * np.abs(exact["y"]).max())


@pytest.mark.parametrize(("positions", "stays"), [(511, []), (512, ["sums"])])
def test_a_sum_is_long_from_512_terms_on(graph, positions, stays):
    model = graph(
        f"""g (float[1,8,1,{positions}] x) => (float[1,1,8,1] y) {{
            map = Conv(x, w1)
            turned = Transpose<perm=[0,2,3,1]>(map)
            rows = Transpose<perm=[0,2,1,3]>(map)
            sums = MatMul(rows, turned)
            y = MatMul(sums, w2)
        }}""",
        w1=W,
        w2=(8, 1),
    )
    kept = float32_nodes(model)
    assert kept == ([*stays, "y"] if stays else [])


@pytest.mark.parametrize(
    ("weights", "product", "is_mean"),
    [
        ("s = Softmax<axis=-1>(map)", "MatMul(s, turned)", True),
        ("s = Softmax<axis=3>(map)", "MatMul(s, turned)", True),
        ("s = Softmax<axis=1>(map)", "MatMul(s, turned)", False),
        ("u = Softmax<axis=-1>(map) s = Transpose<perm=[0,1,3,2]>(u)", "MatMul(map, s)", True),
        ("s = Softmax<axis=2>(turned)", "MatMul(map, s)", True),
        ("s = Softmax<axis=3>(turned)", "MatMul(map, s)", False),
    ],
)
def test_a_product_with_a_softmax_over_what_it_adds_up_is_a_mean(graph, weights, product, is_mean):
    model = graph(
        f"""g (float[1,8,8,600] x) => (float[1,8,8,8] y) {{
            map = Conv(x, w1)
            turned = Transpose<perm=[0,1,3,2]>(map)
            {weights}
            product = {product}
            y = Conv(product, w2)
        }}""",
        w1=W,
        w2=W,
    )
    assert ("product" not in float32_nodes(model)) == is_mean


def test_a_reduction_is_long_by_how_many_values_become_one(graph):
    model = graph(
        """g (float[n,8,32,32] x) => (float[n,8,32,32] y) {
            map = Conv(x, w1)
            few = ReduceSum(map, channels)
            many = ReduceSum(map, positions)
            product = Mul(few, many)
            shares = Div(map, product)
            y = Conv(shares, w2)
        }""",
        w1=W,
        w2=W,
        channels=np.array([1]),
        positions=np.array([2, 3]),
    )
    assert float32_nodes(model) == ["few", "many", "product", "shares"]  # few by its operator alone
    _, kept = assign_types(Graph(model))
    assert 'Mul "product"' in kept


class Between(nn.Module):
    """A module between two layers; ONNX Runtime and the casts see it as in its network."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.ReLU())
        self.module = module
        self.last = nn.Conv2d(64, 5, 1)

    def forward(self, x):
        return self.last(self.module(self.first(x)))


def channel_attention():
    module = ChannelAttention()
    nn.init.ones_(module.gamma)
    return module


def faint_attention():
    module = CompactNonLocal(64, 32, groups=8)
    for conv in (module.key, module.value):
        conv.weight.data *= 3e-4
    return module


def in_full_frame(make):
    """The module that `make` gives, as an ONNX model, on a map at 1/8 of 1024x2048, and an image for it."""
    torch.manual_seed(0)
    net = Between(make())
    spec = ModelSpec("between", 128, 256, classes=("a", "b", "c", "d", "e"), io="tensor")
    images = torch.randn(2, 3, *spec.size)
    randomise(net, images)
    # Batch norms that make values of 3 and more: as many positions times their products leave float16's range.
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.bias.data += 3
    return export.convert(net, spec, 1), images[:1].numpy()


def answers_in_float16_as(exact, model, x):
    cast_to_fp16(model)
    name = model.graph.output[0].name
    np.testing.assert_allclose(answer(model, x), exact[name], rtol=0, atol=3e-3 * np.abs(exact[name]).max())


@pytest.mark.parametrize(
    "make",
    [channel_attention, lambda: FeatureGraph(64), lambda: GlobalReasoning(64, 16), lambda: EMAttention(64, 16)],
    ids=["DANet", "DGCNet", "GloRe", "EMANet"],
)
def test_a_sum_of_a_network_that_overflows_at_full_frame_answers_as_in_float32(make):
    model, x = in_full_frame(make)
    exact = values_of(model, x)
    products = (exact[node.output[0]] for node in model.graph.node if node.op_type == "MatMul")
    assert max(np.abs(product).max() for product in products) > FLOAT16_MAX
    answers_in_float16_as(exact, model, x)


def test_a_map_is_not_multiplied_by_galdnets_attention_where_that_is_too_small_for_float16():
    model, x = in_full_frame(faint_attention)
    exact = values_of(model, x)
    attention = next(exact[node.output[0]] for node in model.graph.node if node.op_type == "ReduceMean")
    assert np.abs(attention).min() < np.finfo(np.float16).smallest_normal / 256  # 8 of its 11 digits are lost
    answers_in_float16_as(exact, model, x)
