import copy
import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from nets import Answers, Undone

from roadseg.export import check, lint
from roadseg.export.check import check_structure, compare_with_torch, known_gaps, synthetic_frames
from roadseg.export.model import convert
from roadseg.export.ops import MAX_POOL_INDICES, MAX_UNPOOL
from roadseg.runtime import ExportError, MissingDependencyError, SpecError
from roadseg.runtime.onnxfile import serialise


@pytest.fixture(scope="module")
def net():
    return Answers(F.relu).eval()


@pytest.fixture(scope="module")
def model(net, spec):
    return convert(net, spec, batch=1)


def proto(graph, text, **weights):
    return ir.to_proto(graph(text, **weights))


GAPS = {
    "Col2Im (c): op unsupported by {}.": """g (float[1,12,16] x) => (float[1,3,8,8] y) {
        [c] z = Col2Im<strides=[2,2]>(x, size, block) [r] y = Relu(z) }""",
    "Unique (u): op unsupported by {}.": "g (float[8] x) => (float[n] y) { [r] z = Relu(x) [u] y = Unique(z) }",
    "Mystery (m): op unsupported by {}.": "g (float[8] x) => (float[8] y) { [m] y = roadseg.Mystery(x) }",
    "MaxPool (p): indices unsupported by {}.": """g (float[1,2,4,4] x) => (float[1,2,2,2] y, int64[1,2,2,2] i) {
        [p] y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }""",
    "Resize (r): antialias unsupported by {}.": """g (float[1,3,8,8] x) => (float[1,3,4,4] y) {
        [r] y = Resize<mode="linear", antialias=1>(x, , , four) }""",
    "Resize (r): coordinate_transformation_mode half_pixel_symmetric unsupported by {}.": """
        g (float[1,3,8,8] x) => (float[1,3,4,4] y) {
        [r] y = Resize<mode="linear", coordinate_transformation_mode="half_pixel_symmetric">(x, , , four) }""",
    "Transpose (t): uint8 in anything but a Cast unsupported by {}.": """
        g (uint8[1,8,8,3] x) => (float[1,3,8,8] y) {
        [t] z = Transpose<perm=[0,3,1,2]>(x) [c] y = Cast<to=1>(z) }""",
}
WEIGHTS = {"size": np.array([8, 8]), "block": np.array([2, 2]), "four": np.array([1, 3, 4, 4])}


@pytest.mark.parametrize("gap", GAPS)
def test_what_tensorrt_lacks_is_named_with_its_node(graph, gap):
    pytest.importorskip("tensorrt_rtx")
    (message,) = lint(proto(graph, GAPS[gap], **WEIGHTS))
    assert message.startswith(gap.partition("{}")[0] + "TensorRT-RTX 1.")


@pytest.mark.parametrize("gap", GAPS)
def test_the_gaps_are_known_without_tensorrt(graph, monkeypatch, gap):
    def missing(module, purpose):
        raise MissingDependencyError(f"{purpose} needs {module}")

    monkeypatch.setattr(check, "require", missing)
    assert lint(proto(graph, GAPS[gap], **WEIGHTS)) == (gap.format("TensorRT"),)


@pytest.mark.parametrize("op", sorted(check.UNSUPPORTED_OPS))
def test_tensorrt_refuses_every_op_of_the_table(op):
    trt = pytest.importorskip("tensorrt_rtx")
    nodes = [onnx.helper.make_node("Relu", ["x"], ["a"]), onnx.helper.make_node(op, ["a"], ["y"], name="node")]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 4, 4]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    assert check.parser_messages(model, trt, "RTX") == {"node": f"{op} (node): op unsupported by RTX."}


def test_the_parser_never_speaks_of_a_plugin(graph):
    pytest.importorskip("tensorrt_rtx")
    text = "g (float[8] x) => (int64[1,n] y) { [r] z = Relu(x) [z] y = NonZero(z) }"
    (message,) = lint(proto(graph, text))
    assert message.startswith("NonZero (z): op unsupported by TensorRT-RTX 1.")


def with_function(graph, op):
    """A model with one call of a function, whose body is one node."""
    model = proto(graph, "g (float[8] x) => (float[8] y) { [m] y = roadseg.Mystery(x) }")
    body = [onnx.helper.make_node(op, ["a"], ["b"], name="inner")]
    opset = onnx.helper.make_opsetid("", 20)
    model.functions.append(onnx.helper.make_function("roadseg", "Mystery", ["a"], ["b"], body, [opset]))
    return model


def test_a_function_that_the_file_brings_along_is_no_gap(graph):
    model = with_function(graph, "Relu")
    assert known_gaps(model, "TensorRT") == {}
    assert lint(model) == ()


def test_the_parser_looks_into_a_function_that_the_file_brings_along(graph):
    pytest.importorskip("tensorrt_rtx")
    (message,) = lint(with_function(graph, "Unique"))
    assert message.startswith("Unique (inner__1): op unsupported by TensorRT-RTX 1.")


def test_a_resize_that_tensorrt_has_is_no_gap(graph):
    text = """g (float[1,3,8,8] x) => (float[1,3,4,4] y) {
        y = Resize<mode="cubic", coordinate_transformation_mode="align_corners">(x, , , four) }"""
    model = proto(graph, text, **WEIGHTS)
    assert known_gaps(model, "TensorRT") == {}
    assert lint(model) == ()


def test_a_graph_of_wrong_types_is_refused(graph):
    model = proto(graph, "g (float[8] x, int64[8] i) => (float[8] y) { y = Relu(x) }")
    model.graph.node[0].op_type = "Add"
    model.graph.node[0].input.append("i")
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_structure(model)


@pytest.mark.parametrize("length", [8, 1000])
def test_a_weight_that_was_cut_short_is_refused(graph, length):
    weight = np.ones(length, np.float32)
    model = proto(graph, f"g (float[{length}] x) => (float[{length}] y) {{ y = Add(x, w) }}", w=weight)
    model.graph.initializer[0].raw_data = weight[1:].tobytes()
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_structure(model)


def test_large_weights_stay_and_every_value_gets_its_shape(graph):
    model = proto(
        graph, "g (float[1000] x) => (float[1000] y) { z = Add(x, w)  y = Relu(z) }", w=np.ones(1000, "f")
    )
    del model.graph.value_info[:]
    checked = check_structure(model)
    assert [len(tensor.raw_data) for tensor in checked.graph.initializer] == [4000]
    assert [value.name for value in checked.graph.input] == ["x"]
    assert [(v.name, v.type.tensor_type.shape.dim[0].dim_value) for v in checked.graph.value_info] == [("z", 1000)]


def test_an_answer_that_ignores_the_image_is_refused(graph):
    model = proto(graph, "g (float[8] x) => (float[8] y) { y = Relu(w) }", w=np.ones(8, np.float32))
    with pytest.raises(ExportError, match="does not depend on its input: nothing in the graph reads x"):
        check_structure(model)


def test_a_model_that_answers_otherwise_is_refused_with_numbers(net, model, spec):
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    (bias,) = (w for w in changed.graph.initializer if w.name == "/conv/Conv.B")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([9, 0, 0, 0, 0], np.float32), bias.name))
    comparison = compare_with_torch(net, spec, serialise(changed), synthetic_frames(spec), batch=1)
    assert comparison.agreement < 0.9
    assert comparison.pixels == 2 * 44 * 60
    with pytest.raises(ExportError, match=rf"label to {comparison.agreement:.4%} of 5280 pixels in 2 frames"):
        comparison.raise_for_difference("mongrel")


@pytest.mark.parametrize(
    ("agreement", "tied", "error", "refused"),
    [
        (0.9999, 0.0, 0.01, False),
        (0.99989, 0.0, 0.0, True),
        (0.999, 0.0009, 0.0, False),
        (0.998, 0.002, 0.0, True),
        (1.0, 0.0, 0.011, True),
        (1.0, 0.0, float("nan"), True),
    ],
)
def test_one_pixel_in_ten_thousand_some_ties_and_a_thousandth_of_the_largest_logit_are_allowed(
    agreement, tied, error, refused
):
    comparison = check.Comparison(1, 100_000, agreement, tied, error, max_logit=10.0)
    if refused:
        with pytest.raises(ExportError, match=r"Nothing was written"):
            comparison.raise_for_difference("mongrel")
    else:
        comparison.raise_for_difference("mongrel")


def test_another_label_ties_if_rounding_could_have_made_it_the_largest():
    logits = torch.tensor([[10.0, 10.0, 10.0, 10.0], [9.991, 9.98, -10.0, 9.991]]).reshape(1, 2, 1, 4)
    comparison = check._compare(torch.tensor([[[1, 1, 1, 0]]], dtype=torch.uint8), logits)
    assert (comparison.agreement, comparison.tied, comparison.max_logit) == (0.25, 0.25, 10.0)


@pytest.fixture(scope="module", params=["frame", "tensor"])
def undone(request, spec):
    """A network that undoes a pool, its model, and frames in one of which two places of a window are equal.

    The places have red and green the other way round, and no blue; the first channel that is pooled is red plus
    green plus a little blue.
    """
    spec = dataclasses.replace(spec, io=request.param, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    net = Undone().eval()
    with torch.no_grad():
        net.stem.weight[0] = torch.tensor([1.0, 1.0, 0.0137])[:, None, None]
    frames = [*np.random.default_rng(0).integers(256, size=(2, *spec.size, 3), dtype=np.uint8)]
    frames[1][20:22, 30:32] = [[[240, 200, 0], [200, 240, 0]], [[0, 0, 0], [0, 0, 0]]]
    return net, spec, convert(net, spec, batch=1), frames


def off_by(model, share):
    """A copy of the model whose first convolution has a weight for green that is larger by a share."""
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    (tensor,) = (w for w in changed.graph.initializer if w.name == "/stem/Conv.W")
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0, 1] *= 1 + share
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    return serialise(changed)


def test_a_place_that_rounding_chose_is_forgiven(undone, monkeypatch):
    net, spec, model, frames = undone
    rounded = off_by(model, 1e-6)
    comparison = compare_with_torch(net, spec, rounded, frames, batch=1)
    comparison.raise_for_difference("undone")
    assert comparison.followed == 1 / (2 * 4 * 22 * 30)  # one window of one channel, in two frames
    assert comparison.max_logit_error is None or comparison.max_logit_error < 1e-5
    monkeypatch.setattr(check, "with_choices", lambda data: data)
    with pytest.raises(ExportError):  # it is the choice that is forgiven, and not what it does to the answer
        compare_with_torch(net, spec, rounded, frames, batch=1).raise_for_difference("undone")


WRONG = {
    "the smallest value is chosen": (MAX_POOL_INDICES, "ArgMax <axis", "ArgMin <axis"),
    "rows are taken for columns": (MAX_POOL_INDICES, "Mod (best, kernel)", "Div (best, kernel)"),
    "the place is one further": (
        MAX_POOL_INDICES,
        "y = Add (before, column)",
        "z = Add (before, column) y = Add (z, one)",
    ),
    "no value is put back": (
        MAX_UNPOOL,
        "y = Where (named_below_right,",
        "n = Not (named_below_right) y = Where (n,",
    ),
    "values are put one row down": (
        MAX_UNPOOL,
        "before = Mul (rows,",
        "above_it = Sub (rows, one) before = Mul (above_it,",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_choice_or_unpooling_is_not(undone, fault):
    net, spec, model, frames = undone
    op, right, wrong = WRONG[fault]
    changed_op = copy.copy(op)
    changed_op.body = op.body.replace(right, wrong)
    assert changed_op.body != op.body
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    (function,) = (f for f in changed.functions if f.name == op.name)
    function.CopyFrom(changed_op.function(function.opset_import[0].version))
    comparison = compare_with_torch(net, spec, serialise(changed), frames, batch=1)
    with pytest.raises(ExportError, match="undone: ONNX Runtime"):
        comparison.raise_for_difference("undone")


def test_a_weight_that_is_off_by_more_than_rounding_is_not(undone):
    net, spec, model, frames = undone
    comparison = compare_with_torch(net, spec, off_by(model, 0.1), frames, batch=1)
    with pytest.raises(ExportError, match="undone: ONNX Runtime"):
        comparison.raise_for_difference("undone")


def test_few_choices_may_be_left_to_rounding():
    comparison = check.Comparison(1, 100_000, 1.0, 0.0, 0.0, max_logit=10.0, followed=0.0009)
    comparison.raise_for_difference("mongrel")
    with pytest.raises(ExportError, match=r"equally large values than PyTorch in 0.1100% of cases; at most 0.10%"):
        dataclasses.replace(comparison, followed=0.0011).raise_for_difference("mongrel")


def test_the_last_batch_is_filled(spec):
    frames = list(synthetic_frames(spec, 3))
    batches = list(check._batched(frames, spec, 2))
    assert [len(batch) for batch in batches] == [2, 2]
    np.testing.assert_array_equal(batches[1][0], batches[1][1])
    assert [len(batch) for batch in check._batched(frames, spec, None)] == [2, 1]


def test_frames_of_another_size_are_refused(net, model, spec):
    with pytest.raises(SpecError, match=r"takes frames of shape \(N, 44, 60, 3\)"):
        compare_with_torch(net, spec, serialise(model), [np.zeros((60, 44, 3), np.uint8)], batch=1)


def test_no_frames_are_no_proof(net, model, spec):
    with pytest.raises(ExportError, match="no frames to compare"):
        compare_with_torch(net, spec, serialise(model), [], batch=1)


def test_synthetic_frames_are_smooth_and_the_same_every_time(spec):
    first, second = (list(synthetic_frames(spec)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
    frame = first[0].astype(int)
    assert frame.std() > 20
    assert np.abs(np.diff(frame, axis=1)).mean() < frame.std() / 2


def test_frames_reach_a_bgr_network_in_its_order(spec):
    bgr = dataclasses.replace(spec, io="tensor", channels="bgr", mean=(0.1, 0.2, 0.3))
    net = Answers(F.relu).eval()
    data = serialise(convert(net, bgr, batch=1))
    comparison = compare_with_torch(net, bgr, data, synthetic_frames(bgr), batch=1)
    assert comparison.max_logit_error < 1e-5
