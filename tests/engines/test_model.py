import onnx
import pytest

from roadseg.engines.model import read_model
from roadseg.runtime import ArtifactError, BuildError
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, set_metadata


@pytest.fixture
def edit(save_segmenter, save):
    """Writes a segmenter after `change` was done to it."""

    def write(change):
        model = onnx.load(save_segmenter())
        change(model)
        return save(model)

    return write


def test_a_model_says_what_it_is(save_segmenter, spec):
    model = read_model(save_segmenter("int8", batch=2))
    assert (model.spec, model.precision, model.batch) == (spec, "int8", 2)
    assert model.quantised


def test_a_model_says_what_it_was_made_from(edit):
    path = edit(lambda model: set_metadata(model, {PROVENANCE_KEY: '{"checkpoint": "abc"}'}))
    assert read_model(path).provenance == {"checkpoint": "abc"}


def test_an_open_batch_is_none(save_segmenter):
    model = read_model(save_segmenter(batch="N"))
    assert model.batch is None
    assert not model.quantised


def test_an_unknown_precision_is_refused_with_the_known_ones(edit):
    path = edit(lambda model: set_metadata(model, {PRECISION_KEY: "fp8"}))
    with pytest.raises(ArtifactError, match="'fp8'; known are fp32, fp16, int8"):
        read_model(path)


def test_two_outputs_are_refused(edit):
    path = edit(lambda model: model.graph.output.append(model.graph.output[0]))
    with pytest.raises(BuildError, match="has 1 inputs and 2 outputs"):
        read_model(path)


def test_a_model_without_a_spec_is_refused(edit):
    path = edit(lambda model: model.ClearField("metadata_props"))
    with pytest.raises(ArtifactError, match="holds no ModelSpec"):
        read_model(path)
