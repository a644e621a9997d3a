import numpy as np
import pytest

from roadseg.calib.logits import find_logits
from roadseg.runtime.onnxfile import load_onnx

FRAME = """g (float[1,3,4,4] images) => (uint8[{labels}] labels) {{
    coarse = Conv(images, w)
    fine = Resize<mode="linear">(coarse, , factors)
    {choice}
}}"""
CHOICES = {
    "1,8,8": "best = ArgMax<axis=1, keepdims=0>(fine) labels = Cast<to=2>(best)",
    "1,8,8,1": """best = ArgMax<axis=1>(fine) bytes = Cast<to=2>(best)
        labels = Transpose<perm=[0,2,3,1]>(bytes)""",
}


@pytest.mark.parametrize(("labels", "choice"), CHOICES.items())
def test_logits_are_found_in_front_of_what_chooses_and_what_enlarges(graph, labels, choice):
    factors = np.array([1, 1, 2, 2], np.float32)
    model = graph(FRAME.format(labels=labels, choice=choice), w=(2, 3, 1, 1), factors=factors)
    assert find_logits(model) == "coarse"
    assert find_logits(model, enlarged=True) == "fine"


def test_a_model_may_return_them_itself(small, mobile):
    assert find_logits(load_onnx(small)) == "logits"
    assert find_logits(load_onnx(mobile)) == "logits"


@pytest.mark.parametrize("body", ["y = Cast<to=2>(x)", "best = ArgMax<axis=2>(x) y = Cast<to=2>(best)"])
def test_a_model_that_ends_otherwise_has_none(graph, body):
    assert find_logits(graph(f"g (float[1,2,8,8] x) => (uint8[1,2,1,8] y) {{ {body} }}")) is None
