import collections
import copy
import re

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from roadseg import export
from roadseg.runtime import ModelSpec
from roadseg.train.models import build, randomise
from roadseg.train.official import Source, translate
from roadseg.train.official.resnet import EVERY_NORM
from roadseg.train.official.stdc_seg import STDC1


class InPlaceABN(nn.BatchNorm2d):
    """What mapillary/inplace_abn computes in inference, without an activation: its scale is |weight| + eps."""

    def forward(self, x):
        scale = self.weight.abs() + self.eps
        return F.batch_norm(x, self.running_mean, self.running_var, scale, self.bias, eps=self.eps)


def as_published(net, pattern):
    """The network with InPlaceABN, half of its scales negative, where the norms' keys match `pattern`."""
    net = copy.deepcopy(net)
    for key, norm in list(net.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and re.fullmatch(pattern, f"{key}.weight"):
            norm.weight.data[::2] *= -1
            norm.__class__ = InPlaceABN
    return net


@pytest.mark.parametrize("name", ["ccnet_r101", "ocnet_base_r101", "ocnet_pyramid_r101", "ocnet_asp_r101"])
def test_every_norm_and_nothing_else_is_read_as_inplace_abn(name):
    net = build(name, 19)
    norms = {f"{key}.weight" for key, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {key for key in net.state_dict() if re.fullmatch(EVERY_NORM, key)} == norms


def test_no_trace_of_inplace_abn_is_left_in_an_exported_model_imported_or_not():
    torch.manual_seed(0)
    net = build("stdc1", 19)
    spec = ModelSpec("stdc1", 64, 128, align_corners=net.align_corners, io="tensor")
    images = torch.randn(2, 3, *spec.size)
    randomise(net, images)
    published = as_published(net, STDC1.absolute)
    assert sum(isinstance(module, InPlaceABN) for module in published.modules()) == 9
    source = Source("owner/name@1", "stdc1", absolute=STDC1.absolute)
    net.load_state_dict(translate(published.state_dict(), source, net).weights)
    with torch.no_grad():
        expected = F.interpolate(
            published(images[:1]), spec.size, mode="bilinear", align_corners=spec.align_corners
        )
    for form in (published, net):
        model = export.convert(form, spec, 1)
        ops = collections.Counter(node.op_type for node in model.graph.node)
        assert not ops.keys() & {"Abs", "BatchNormalization"}
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        answer = session.run(None, {session.get_inputs()[0].name: images[:1].numpy()})[0]
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4 * expected.abs().max())
