import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from roadseg.calib.placement import place
from roadseg.calib.ranges import Collector
from roadseg.runtime import CalibrationError, ModelSpec, SpecError
from roadseg.runtime.onnxfile import load_onnx, onnx_spec


def collect(model, spec, frames, method="minmax"):
    collector = Collector(model, spec, place(model), [method])
    for frame in frames:
        collector.add(frame)
    return collector.ranges(method)


def values_of(model, tensor, feeds):
    """A tensor between the nodes, by onnx's own reference implementation."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return ReferenceEvaluator(exposed).run([tensor], feeds)[0]


def test_minmax_is_the_largest_magnitude_over_all_frames(small, scenes):
    model, frames = load_onnx(small), scenes().frames
    ranges = collect(model, onnx_spec(model, small), frames)
    assert list(ranges.amax) == ["pixels", "active"]
    for tensor, amax in ranges.amax.items():
        expected = max(np.abs(values_of(model, tensor, {"frames": frame[None]})).max() for frame in frames)
        np.testing.assert_allclose(amax, expected, rtol=1e-6)


def test_entropy_cuts_off_rare_values_and_no_more(fastscnn, scenes):
    model = load_onnx(fastscnn)
    spec, frames = onnx_spec(model, fastscnn), scenes(96, 128, groups=(3,)).frames
    entropy, minmax = (collect(model, spec, frames, method) for method in ("entropy", "minmax"))
    shares = np.array([entropy.amax[name] / minmax.amax[name] for name in minmax.amax])
    assert shares.max() <= 1.001
    assert 0.1 < shares.min() < 0.9


def test_a_model_that_takes_tensors_sees_normalised_frames(graph):
    model = graph(
        "g (float[1,3,2,2] images) => (float[1,1,2,2] logits) { logits = Conv(images, w) }", w=(1, 3, 1, 1)
    )
    spec = ModelSpec(
        "t", 2, 2, classes=("road",), mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.4), channels="bgr", io="tensor"
    )
    frame = np.full((2, 2, 3), 255, np.uint8)
    frame[0, 0] = (255, 255, 0)
    # Blue is 0 there; it comes first in BGR: (0 - 0.5) / 0.1.
    assert collect(model, spec, [frame]).amax["images"] == pytest.approx(5.0)
    grey = np.full((2, 2, 3), 255, np.uint8)
    grey[..., 2] = 128
    # Red and green are 1: (1 - 0.5) / 0.2 is the largest, blue is (128 / 255 - 0.5) / 0.1.
    assert collect(model, spec, [grey]).amax["images"] == pytest.approx(2.5)


def test_tensors_with_a_common_scale_have_the_widest_range_among_them(graph):
    model = graph(
        """g (float[1,3,2,2] images) => (float[1,1,2,2] y) {
            large = Mul(images, ten)
            both = Concat<axis=1>(images, large)
            y = Conv(both, w)
        }""",
        ten=np.array(10, np.float32),
        w=(1, 6, 1, 1),
    )
    spec = ModelSpec("t", 2, 2, classes=("road",), mean=(0, 0, 0), std=(1, 1, 1), io="tensor")
    ranges = collect(model, spec, [np.full((2, 2, 3), 255, np.uint8)])
    assert ranges.amax == {"images": 10.0, "large": 10.0, "both": 10.0}


def test_a_tensor_of_zeros_gets_a_scale_all_the_same(small):
    model = load_onnx(small)
    ranges = collect(model, onnx_spec(model, small), [np.zeros((8, 8, 3), np.uint8)], "entropy")
    assert ranges.amax["pixels"] == 1.0


def test_a_tensor_that_is_not_finite_is_named(graph):
    model = graph(
        """g (float[1,3,2,2] images) => (float[1,1,2,2] y) {
            broken = Log(images)
            y = Conv(broken, w)
        }""",
        w=(1, 3, 1, 1),
    )
    spec = ModelSpec("t", 2, 2, classes=("road",), mean=(0, 0, 0), std=(1, 1, 1), io="tensor")
    with pytest.raises(CalibrationError, match='"broken" holds infinite values or NaN'):
        collect(model, spec, [np.zeros((2, 2, 3), np.uint8)])


def test_a_batched_model_is_fed_whole_batches(graph):
    model = graph("g (float[2,3,2,2] images) => (float[2,1,2,2] y) { y = Conv(images, w) }", w=(1, 3, 1, 1))
    spec = ModelSpec("t", 2, 2, classes=("road",), mean=(0, 0, 0), std=(1, 1, 1), io="tensor")
    assert collect(model, spec, [np.full((2, 2, 3), 51, np.uint8)]).amax["images"] == pytest.approx(0.2)


def test_a_frame_of_another_size_is_refused(small):
    model = load_onnx(small)
    with pytest.raises(SpecError, match=r"takes frames of shape \(N, 8, 8, 3\)"):
        collect(model, onnx_spec(model, small), [np.zeros((4, 8, 3), np.uint8)])
