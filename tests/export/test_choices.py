import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from nets import Answers, Undone

from roadseg.export import convert
from roadseg.export.choices import Following, with_choices
from roadseg.export.ops import MAX_POOL_INDICES
from roadseg.runtime.onnxfile import serialise

SEGNET = (2, 2, 0)
X = torch.tensor([[3.0, 2.995, 0.0, 7.0], [1.0, 2.0, 6.99, 7.0]])[None, None]
"""Its two windows choose places 0 and 3; the second holds 7 twice, and both hold a value nearly as large."""


def allow_a_hundredth(largest):
    return 0.01 if largest == 7 else 0.0


def follow(*choices):
    """What is chosen of X beside a model that chose so, and the share in which it was followed."""
    given = [torch.tensor(choice, dtype=torch.int32)[None, None] for choice in choices]
    with torch.inference_mode(), Following(given, allow_a_hundredth) as following:
        chosen = MAX_POOL_INDICES(X, *SEGNET)
    return chosen.flatten().tolist(), following.share


def test_a_choice_that_is_as_good_is_followed():
    assert follow([[0, 3]]) == ([0, 3], 0)
    assert follow([[1, 3]]) == ([1, 3], 0.5)
    assert follow([[1, 7]]) == ([1, 7], 1)
    assert follow([[0, 6]]) == ([0, 6], 0.5)


@pytest.mark.parametrize("choice", [[4, 3], [5, 3], [0, 2], [3, 3], [0, 0], [0, -1], [0, 99]])
def test_a_smaller_value_and_a_place_that_the_window_does_not_see_are_not(choice):
    assert follow([choice]) == ([0, 3], 0)


def test_the_model_may_have_chosen_in_another_order():
    assert follow([[4, 2]], [[1, 3]], [[0, 3, 5]]) == ([1, 3], 0.5)


def test_choices_become_outputs_and_change_no_answer(spec):
    model = convert(Undone().eval(), spec, batch=1)
    frames = torch.randint(256, (1, *spec.size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, watched = (answers(data, frames.numpy()) for data in (serialise(model), with_choices(serialise(model))))
    assert len(plain) == 1
    assert (watched[0] == plain[0]).all()
    assert watched[1].shape == (1, 4, spec.height // 2, spec.width // 2)


def answers(data, frames):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"frames": frames})


def test_a_model_that_chooses_nothing_stays_as_it_is(spec):
    data = serialise(convert(Answers(F.relu).eval(), spec, batch=1))
    assert with_choices(data) is data
    named = onnx.load_model_from_string(data)
    named.doc_string = "MaxPoolIndices"
    assert [o.name for o in onnx.load_model_from_string(with_choices(named.SerializeToString())).graph.output] == [
        "labels"
    ]
