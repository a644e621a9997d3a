import dataclasses

import pytest

from roadseg.calib.cache import Ranges
from roadseg.calib.cost import LAUNCH_US, estimate_ms, kernels
from roadseg.calib.fp16 import cast_to_fp16
from roadseg.calib.gpus import GPUS, Gpu, Rates, find_gpu
from roadseg.calib.placement import place
from roadseg.calib.qdq import insert_qdq
from roadseg.runtime import UsageError
from roadseg.runtime.onnxfile import save_onnx

GPU = Gpu(
    "made up", "0.0", 1, 1.0, 1.0, Rates({"fp32": 1, "fp16": 2, "int8": 4}, {"fp32": 1, "fp16": 1, "int8": 1})
)
"""A billion multiply-adds and bytes per second."""

RESIDUAL = """g (float[1,8,4,4] x) => (float[1,8,4,4] y) {
    a = Conv(x, w1, b1) b = Relu(a) c = Conv(b, w2) d = Add(c, b) y = Relu(d) }"""


@pytest.fixture
def residual(graph):
    return graph(RESIDUAL, w1=(8, 8, 1, 1), b1=(8,), w2=(8, 8, 1, 1))


def int8(model):
    insert_qdq(model, Ranges(dict.fromkeys(place(model).activations, 1.0), "EntropyCalibration2"))
    return model


def test_a_layer_takes_in_what_is_pointwise_behind_it(residual):
    first, second = kernels(residual)
    # 128 values in and out, 64 weights and 8 biases, of 4 bytes each.
    assert (first.title, first.macs, first.bytes) == ("a", 8 * 128, 4 * (128 + 128 + 64 + 8))
    # The sum reads b, which the layer reads anyway.
    assert (second.title, second.macs, second.bytes) == ("c", 8 * 128, 4 * (128 + 128 + 64))


def test_float16_halves_the_bytes(residual):
    cast_to_fp16(residual)
    cast, first, second = kernels(residual)
    assert cast.bytes == (4 + 2) * 128  # the input of the model stays float32
    assert (first.kind, first.bytes) == ("fp16", 2 * (128 + 128 + 64 + 8))
    assert (second.kind, second.bytes) == ("fp16", 2 * (128 + 64) + 4 * 128)  # and so does its output


def test_what_stands_behind_a_quantizer_has_one_byte(residual):
    quantize, first, second = kernels(int8(residual))
    scale = 4
    assert quantize.bytes == 4 * 128 + 128 + scale + 1
    # Weights are read as int8; the kernel writes 8 bits only, since everybody reads those.
    assert (first.kind, first.macs) == ("int8", 8 * 128)
    assert first.bytes == 128 + 64 + 4 * 8 + 128 + scale + 1
    assert (second.kind, second.bytes) == ("int8", 128 + 64 + 4 * 128)


def test_views_move_nothing_and_are_read_through(graph):
    model = graph(
        """g (float[1,8,4,4] x) => (float[8,16] z) {
            y = Relu(x) shape = Constant<value_ints=[8,16]>() v = Reshape(y, shape) z = MatMul(v, w) }""",
        w=(16, 16),
    )
    relu, product = kernels(model)
    assert relu.bytes == 2 * 4 * 128
    assert (product.macs, product.bytes) == (128 * 16, 4 * (128 + 256 + 128))


def test_depthwise_layers_run_on_cuda_cores(graph):
    model = graph("g (float[1,8,4,4] x) => (float[1,8,4,4] y) { y = Conv<group=8>(x, w) }", w=(8, 1, 1, 1))
    (kernel,) = kernels(model)
    assert kernel.vector
    assert kernel.macs == 128


def test_a_kernel_takes_the_longer_of_arithmetic_and_memory(residual):
    first, _ = kernels(residual)
    assert first.seconds(GPU) == pytest.approx(first.bytes * 1e-9 + LAUNCH_US * 1e-6)  # 1312 bytes, 1024 products
    fast = dataclasses.replace(GPU, bandwidth_gb_s=1e6)
    assert first.seconds(fast) == pytest.approx(1024e-9 + LAUNCH_US * 1e-6)


def test_int8_is_estimated_faster_than_float16_than_float32(fastscnn, tmp_path):
    from roadseg.calib.source import load_float_model

    half, whole = load_float_model(fastscnn), load_float_model(fastscnn)
    cast_to_fp16(half)
    save_onnx(tmp_path / "half.onnx", half)
    save_onnx(tmp_path / "int8.onnx", int8(whole))
    times = [estimate_ms(path, GPU) for path in (fastscnn, tmp_path / "half.onnx", tmp_path / "int8.onnx")]
    assert times[0] > times[1]
    assert times[0] > times[2]


@pytest.mark.parametrize(
    ("name", "kind", "tera"),
    [("orin_agx", "int8", 85), ("t4", "fp16", 65), ("h100", "int8", 1979), ("a100", "fp16", 312)],
)
def test_peaks_are_those_of_the_data_sheets(name, kind, tera):
    assert 2 * GPUS[name].mac_per_s(kind) / 1e12 == pytest.approx(tera, rel=0.01)


def test_an_unknown_gpu_lists_the_known():
    with pytest.raises(UsageError, match="no GPU 'orin' is known; take one of orin_agx, "):
        find_gpu("orin")
