import re

from torch import nn

from roadseg.train.models import build
from roadseg.train.official.stdc_seg import STDC1


def test_the_norms_outside_the_backbone_and_nothing_else_are_read_as_inplace_abn():
    net = build("stdc1", 19)
    norms = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    expected = {key for key in norms if not key.startswith("context.backbone.")}
    assert {key for key in net.state_dict() if re.fullmatch(STDC1.absolute, key)} == expected
    assert len(expected) == 9  # of the whole, two in each attention, two refinements, the fusion, the head
