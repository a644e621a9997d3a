import re

import pytest
from torch import nn

from roadseg.train.models import build
from roadseg.train.official.resnet import EVERY_NORM


@pytest.mark.parametrize("name", ["ccnet_r101", "ocnet_base_r101", "ocnet_pyramid_r101", "ocnet_asp_r101"])
def test_every_norm_and_nothing_else_is_read_as_inplace_abn(name):
    net = build(name, 19)
    norms = {f"{key}.weight" for key, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {key for key in net.state_dict() if re.fullmatch(EVERY_NORM, key)} == norms
