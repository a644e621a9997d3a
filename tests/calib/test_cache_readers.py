"""A scale is the same float32 in graph and cache, whoever reads the cache."""

from fractions import Fraction

import numpy as np
import pytest
from onnx import numpy_helper

from roadseg.calib import METHODS, calibrate_each, files_by_method, quantize, read_ranges
from roadseg.calib.graph import Graph
from roadseg.calib.placement import place
from roadseg.runtime.onnxfile import load_onnx


@pytest.fixture(scope="module")
def caches(fastscnn, scenes, tmp_path_factory):
    """Ranges of a Fast-SCNN by every method, by method."""
    outs = files_by_method(tmp_path_factory.mktemp("caches") / "m.ranges", METHODS)
    calibrate_each(fastscnn, scenes(96, 128, groups=(3,)), outs)
    return outs


def scale_from_bits(bits: int) -> Fraction:
    """What IEEE 754 says a positive normal float32 is."""
    exponent, fraction = bits >> 23, bits & 0x7FFFFF
    assert 0 < exponent < 255
    return Fraction(0x800000 + fraction, 1 << 23) * Fraction(2) ** (exponent - 127)


def read_by_the_format(text: str) -> dict[str, Fraction]:
    """A reader that shares nothing with ours, from the format as shared/tensorrt.md has it."""
    lines = text.split("\n")
    assert lines[0] == "TRT-100300-EntropyCalibration2" or lines[0] == "TRT-100300-MinMaxCalibration"
    assert lines[-1] == ""
    named = [(line[: line.rindex(": ")], line[line.rindex(": ") + 2 :]) for line in lines[1:-1]]
    assert len(dict(named)) == len(named)
    return {name: scale_from_bits(int(digits, 16)) for name, digits in named}


def scales_in_graph(model_path, tmp_path, ranges):
    """The scale of every tensor that is quantised, by its name."""
    quantize(model_path, "int8", ranges=ranges, out=tmp_path / "int8.onnx")
    graph = Graph(load_onnx(tmp_path / "int8.onnx"))
    # A tensor that is float16 is cast to float32 in front of its pair.
    quantizers = [node for node in graph.nodes if node.op_type == "QuantizeLinear"]
    pairs = {node.input[0].removesuffix("/fp32"): node.input[1] for node in quantizers}
    return {tensor: numpy_helper.to_array(graph.constants[scale]) for tensor, scale in pairs.items()}


@pytest.mark.parametrize("method", METHODS)
def test_every_tensor_has_one_scale_in_cache_and_graph(fastscnn, caches, tmp_path, method):
    cached = read_by_the_format(caches[method].read_text())
    typed = scales_in_graph(fastscnn, tmp_path, caches[method])
    assert list(cached) == list(typed) == list(place(load_onnx(fastscnn)).activations)
    assert all(scale.dtype == np.float32 and scale.shape == () for scale in typed.values())
    assert cached == {tensor: Fraction(scale.item()) for tensor, scale in typed.items()}


@pytest.mark.parametrize("method", METHODS)
def test_modelopt_reads_the_same_scales(fastscnn, caches, tmp_path, method):
    calib_utils = pytest.importorskip("modelopt.onnx.quantization.calib_utils", exc_type=ImportError)
    theirs = calib_utils.import_scales_from_calib_cache(str(caches[method]))
    ours = read_ranges(caches[method])
    assert list(theirs) == [f"{tensor}_scale" for tensor in ours.amax]
    typed = scales_in_graph(fastscnn, tmp_path, caches[method])
    assert {f"{tensor}_scale": scale.item() for tensor, scale in typed.items()} == theirs
