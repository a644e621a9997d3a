import struct

import numpy as np
import pytest
import torch

from roadseg.runtime import ArtifactError, CheckpointError
from roadseg.train.official import read_official
from roadseg.train.official.mxnet import read_params

VALUES = np.array([[1.5, -2.0, 0.25]], np.float32).tobytes()
GPU = struct.pack("<ii", 2, 0)
FLOATS = struct.pack("<i", 0)


def first(shape=(1, 3), kind=FLOATS, values=VALUES):
    """An array as MXNet 0.11 writes it."""
    return struct.pack(f"<II{len(shape)}q", 0xF993FAC8, len(shape), *shape) + GPU + kind + values


def second(storage=0):
    return struct.pack("<IiI2q", 0xF993FAC9, storage, 2, 1, 3) + GPU + FLOATS + VALUES


def third():
    return struct.pack("<IiI2q", 0xF993FACA, 0, 2, 1, 3) + GPU + FLOATS + VALUES


def before_versions():
    return struct.pack("<I2I", 2, 1, 3) + GPU + FLOATS + VALUES


def name(text):
    return struct.pack("<Q", len(text)) + text


def file_of(*arrays, names=(b"arg:w",), magic=0x112):
    parts = [struct.pack("<QQQ", magic, 0, len(arrays)), *arrays, struct.pack("<Q", len(names)), *map(name, names)]
    return b"".join(parts)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        (tmp_path / "net-0020.params").write_bytes(content)
        return read_params(tmp_path / "net-0020.params")

    return write_and_read


@pytest.mark.parametrize("array", [before_versions, first, second, third])
def test_every_version_of_an_array_is_read(read, array):
    (weights,) = read(file_of(array())).items()
    assert weights[0] == "arg:w"
    assert torch.equal(weights[1], torch.tensor([[1.5, -2.0, 0.25]]))


@pytest.mark.parametrize(
    ("flag", "dtype"),
    [*enumerate((np.float32, np.float64, np.float16, np.uint8, np.int32, np.int8, np.int64))],
)
def test_every_type_is_read(read, flag, dtype):
    values = np.array([1, 0, 100], dtype)
    weights = read(file_of(first((3,), struct.pack("<i", flag), values.tobytes())))
    np.testing.assert_array_equal(weights["arg:w"].numpy(), values, strict=True)


def test_arrays_meet_their_names_in_order_and_in_the_order_of_their_axes(read):
    values = np.arange(24, dtype=np.float32)
    arrays = first((2, 3, 4), values=values.tobytes()), first((1,), values=values[7:8].tobytes())
    weights = read(file_of(*arrays, names=(b"arg:conv_weight", b"aux:conv/bn_moving_var")))
    assert weights["arg:conv_weight"][1, 2, 3] == 23
    assert weights["arg:conv_weight"][0, 1, 0] == 4
    assert weights["aux:conv/bn_moving_var"].tolist() == [7]


def test_an_array_of_the_third_version_may_have_no_axes(read):
    scalar = struct.pack("<IiI", 0xF993FACA, 0, 0) + GPU + FLOATS + np.float32(2.5).tobytes()
    assert read(file_of(scalar))["arg:w"].item() == 2.5


def test_a_file_that_ends_anywhere_too_soon_is_refused(read):
    whole = file_of(second(), first(), names=(b"arg:a", b"aux:b"))
    for length in range(len(whole)):
        with pytest.raises(CheckpointError, match="was cut short"):
            read(whole[:length])
    assert len(read(whole)) == 2


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (file_of(first(), magic=0x113), "begins otherwise"),
        (b"PK\x03\x04" + bytes(40), "begins otherwise"),
        (file_of(second(storage=1)), "sparse"),
        (file_of(second(storage=-1)), "sparse"),
        (file_of(first(kind=struct.pack("<i", 12))), "of type 12; known are 0, 1,"),
        (file_of(first(kind=struct.pack("<i", -1))), "of type -1"),
        (file_of(first(shape=())), "without values"),
        (file_of(first(shape=(0, HUGE))), "without values"),
        (file_of(first(shape=(-1, -3))), "without values"),
        (file_of(first(shape=(HUGE, HUGE))), "was cut short"),
        (file_of(struct.pack("<II", 0xF993FAC8, 0xFFFFFFFF)), "4294967295 axes"),
        (file_of(struct.pack("<I", 0xDEADBEEF)), "3735928559 axes"),
        (struct.pack("<QQQ", 0x112, 0, (1 << 64) - 1) + first(), "was cut short"),
        (struct.pack("<QQQ", 0x112, 0, 0) + struct.pack("<QQ", 1, (1 << 64) - 1), "was cut short"),
        (file_of(first(), names=()), "1 arrays under 0 names"),
        (file_of(first(), first(), names=(b"arg:w", b"arg:w")), "2 arrays under 1 names"),
        (file_of(first(), names=(b"\xff\xfe",)), "not text"),
        (file_of(first()) + b"\0", "goes on for 1 bytes"),
    ],
)
def test_anything_but_named_dense_arrays_is_refused(read, content, reason):
    with pytest.raises(CheckpointError, match=rf"net-0020\.params .*{reason}.*Give the .params file"):
        read(content)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.params does not exist"):
        read_params(tmp_path / "none.params")


def test_a_params_file_is_imported_as_it_is(tmp_path):
    kernel = first((64, 3, 3, 3), values=np.ones(64 * 27, np.float32).tobytes())
    (tmp_path / "their.params").write_bytes(file_of(kernel, names=(b"arg:conv1_1_3x3_s2_weight",)))
    translation = read_official("duc_hdc_r101", tmp_path / "their.params")
    assert translation.mapped == {"arg:conv1_1_3x3_s2_weight": "backbone.conv1.0.weight"}
    assert translation.weights["backbone.conv1.0.weight"].sum() == 64 * 27
