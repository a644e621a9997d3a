import numpy as np
import pytest

from roadseg.calib.divergence import Divergence, log_softmax
from roadseg.runtime import CalibrationError, ModelSpec

TWO_CLASSES = "g (float[1,3,4,4] images) => (float[1,2,4,4] logits) { logits = Conv(images, w, b) }"


def model(graph, bias):
    return graph(TWO_CLASSES, w=np.zeros((2, 3, 1, 1), np.float32), b=np.array([0, bias], np.float32))


@pytest.fixture
def divergence(graph):
    """From a model that gives both classes the same probability, on two frames."""
    spec = ModelSpec("m", 4, 4, classes=("road", "sky"), io="tensor")
    return Divergence(model(graph, 0), spec, np.zeros((2, 4, 4, 3), np.uint8))


def test_it_is_that_of_kullback_and_leibler(graph, divergence):
    # 1/2 ln((1/2) / (1/4)) + 1/2 ln((1/2) / (3/4)), at every position.
    wanted = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    other = divergence.open(model(graph, np.log(3)))
    assert divergence.of(other) == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(divergence.by_frame(other), [wanted, wanted], rtol=1e-6)
    assert divergence.of(divergence.open(model(graph, 0))) == 0
    assert divergence.of(other, limit=wanted * 1.01) == pytest.approx(wanted, rel=1e-6)
    assert divergence.of(other, limit=wanted * 0.99) == np.inf


def test_probabilities_are_those_of_a_softmax():
    # 1 : 3, however large the numbers are.
    logits = np.array([[[1000.0], [1000 + np.log(3)]]], np.float64)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), [[[0.25], [0.75]]], atol=1e-9)
    with pytest.raises(CalibrationError, match="the logits hold infinite values or NaN"):
        log_softmax(np.array([[np.nan, 1]], np.float32))


def test_what_has_no_logits_is_refused(graph):
    no_logits = graph("g (uint8[1,8,8] frames) => (uint8[1,8,8] labels) { labels = Identity(frames) }")
    with pytest.raises(CalibrationError, match='the answer "labels" does not come from logits'):
        Divergence(no_logits, None, ())
