import struct

import numpy as np
import pytest

from roadseg.calib.cache import Ranges, format_cache, parse_cache
from roadseg.runtime import ArtifactError, CalibrationError


def test_a_scale_is_written_as_big_endian_float32():
    # 127 / 127 is 1.0, which is 3f800000; 254 / 127 is 2.0, which is 40000000.
    ranges = Ranges({"frames": 127.0, "relu:0": 254.0}, "EntropyCalibration2")
    assert format_cache(ranges, 8601) == b"TRT-8601-EntropyCalibration2\nframes: 3f800000\nrelu:0: 40000000\n"


def test_the_first_line_names_the_calibrator():
    assert format_cache(Ranges({}, "MinMaxCalibration"), 100300) == b"TRT-100300-MinMaxCalibration\n"


def test_reading_and_writing_again_changes_no_byte():
    rng = np.random.default_rng(0)
    amax = {f"tensor {i}: out": float(v) for i, v in enumerate(np.exp(rng.normal(0, 20, 2000)))}
    text = format_cache(Ranges(amax, "EntropyCalibration2"))
    read = parse_cache(text, "cache")
    assert format_cache(read) == text
    assert list(read.amax) == list(amax)
    scales = [np.float32(v / 127) for v in amax.values()]
    assert [read.scale(name) for name in amax] == scales


def test_a_cache_that_tensorrt_wrote_is_read():
    text = b"TRT-8502-EntropyCalibration2\ninput: 3c010a14\n(Unnamed Layer* 3) [Convolution]_output: 3d000000\n"
    ranges = parse_cache(text, "cache")
    assert ranges.scale("input") == struct.unpack(">f", bytes.fromhex("3c010a14"))[0]
    assert ranges.amax["(Unnamed Layer* 3) [Convolution]_output"] == 127 / 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "does not begin with"),
        (b"\xff\xfe", "does not begin with"),
        (b"TRT-8601-LegacyCalibration\n", "does not begin with"),
        (b"TRT-8601-EntropyCalibration2\nrelu 3f800000\n", "not a tensor and its positive scale: 'relu 3f800000'"),
        (b"TRT-8601-EntropyCalibration2\nrelu: 3f8000\n", "not a tensor and its positive scale"),
        (b"TRT-8601-EntropyCalibration2\nrelu: 00000000\n", "not a tensor and its positive scale"),
        (b"TRT-8601-EntropyCalibration2\nrelu: 7fc00000\n", "not a tensor and its positive scale"),
    ],
)
def test_what_is_no_cache_is_refused(text, message):
    with pytest.raises(ArtifactError, match=message):
        parse_cache(text, "x.ranges")


def test_a_missing_tensor_asks_for_another_calibration():
    with pytest.raises(CalibrationError, match=r'lack the tensor "relu".*calibrate the model again'):
        Ranges({}, "EntropyCalibration2").scale("relu")
