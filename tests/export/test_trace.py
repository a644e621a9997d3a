import dataclasses
import logging
import types

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from nets import Answers
from torch import nn

import roadseg.export.trace
from roadseg.export.passes import NameByModule
from roadseg.export.trace import NET_PATH, trace
from roadseg.runtime import ExportError


def branch_on_values(y):
    return y if y.mean() > 0 else -y


def only_one_image(y):
    return y.reshape(1, 5, 44, 60)


@pytest.mark.parametrize(
    ("answer", "batch", "said"),
    [
        (branch_on_values, 1, r"data-dependent .* \(at `return y if y.mean\(\) > 0 else -y`, line"),
        (lambda y: F.adaptive_max_pool2d(y, (3, 5)), 1, "No ONNX function found for .*aten.adaptive_max_pool2d"),
        (only_one_image, None, "nor on the number of images where the batch is open"),
        (lambda y: y.reshape(7, -1), 1, r"fails on images of shape \(1, 3, 44, 60\): RuntimeError: shape '\[7"),
        (lambda y: y[:, :3], 1, r"should return logits of shape \(N, 5, h, w\), but returned \(1, 3, 44, 60\)"),
        (lambda y: y.sum(), 1, r"\(N, 5, h, w\), but returned \(\)"),
        (lambda y: {}, 1, r"\(N, 5, h, w\), but returned NoneType"),
        (lambda y: "road", 1, r"\(N, 5, h, w\), but returned str"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_short_sentence_about_the_cause(spec, answer, batch, said):
    with pytest.raises(ExportError, match=said) as raised:
        trace(Answers(answer).eval(), spec, batch, opset=20)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_the_main_logits_are_found_among_several_outputs(spec):
    model = trace(Answers(lambda y: [y, y[:, :2]]).eval(), spec, 1, opset=20)
    assert [(o.name, o.dtype, list(o.shape)) for o in model.graph.outputs] == [
        ("labels", ir.DataType.UINT8, [1, 44, 60])
    ]


def test_tensor_io_has_images_in_and_logits_out(spec):
    model = trace(Answers(F.relu).eval(), dataclasses.replace(spec, io="tensor"), 2, opset=20)
    (images,), (logits,) = model.graph.inputs, model.graph.outputs
    assert (images.name, images.dtype, list(images.shape)) == ("images", ir.DataType.FLOAT, [2, 3, 44, 60])
    assert (logits.name, logits.dtype, list(logits.shape)) == ("logits", ir.DataType.FLOAT, [2, 5, 44, 60])


class Talks(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        if torch.compiler.is_exporting():
            print("hello from the network")  # noqa: T201
        return self.conv(x)


def test_the_exporter_is_silent(spec, capfd, caplog):
    trace(Talks().eval(), spec, 1, opset=20)
    with pytest.raises(ExportError):
        trace(Answers(branch_on_values).eval(), spec, 1, opset=20)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_a_torch_that_cannot_be_told_to_note_no_stacks_exports_as_well(spec, monkeypatch):
    monkeypatch.setattr(roadseg.export.trace, "fx_config", types.SimpleNamespace())
    assert len(trace(Answers(F.relu).eval(), spec, 1, opset=20).graph.outputs) == 1


def test_every_node_says_which_module_it_is_from(spec):
    model, _ = NameByModule(NET_PATH["frame"])(trace(Answers(F.relu).eval(), spec, 1, opset=20))
    convolutions = [node.name for node in model.graph if node.op_type == "Conv"]
    assert [name.partition("#")[0] for name in convolutions] == ["/conv/Conv"]
    assert all(node.name.startswith("/") for node in model.graph)
