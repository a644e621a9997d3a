"""Networks of the zoo, as far as one pass."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch

from roadseg.export.model import OPSET, collector_paused, passes
from roadseg.export.passes import Pass
from roadseg.export.trace import trace
from roadseg.runtime import ModelSpec
from roadseg.train import MODELS
from roadseg.train.models import randomise


@pytest.fixture
def network_before() -> Callable[[str, type[Pass]], tuple[ir.Model, np.ndarray]]:
    """A function that gives a network's graph, images to logits, as a pass finds it, and an image for it."""

    def build(name: str, before: type[Pass]) -> tuple[ir.Model, np.ndarray]:
        torch.manual_seed(0)
        net = MODELS[name]()
        spec = ModelSpec(
            name, *MODELS[name].sizes.nearest((64, 128)), align_corners=net.align_corners, io="tensor"
        )
        images = torch.randn(2, 3, *spec.size)
        randomise(net, images)
        with collector_paused():
            model = trace(net, spec, 1, OPSET)
            for apply in passes(spec):
                if isinstance(apply, before):
                    return model, images[:1].numpy()
                model, _ = apply(model)
        raise AssertionError(f"{before.__name__} is not among the passes of an export")

    return build
