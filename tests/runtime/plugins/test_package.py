import dataclasses
import hashlib
import zlib

import msgspec
import pytest

from roadseg.runtime import ArtifactError, ModelSpec, manifest_path
from roadseg.runtime.plugins import Kernel, Launch, Package, TensorType, compress, read_package, write_package

SPEC = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))
PTX = "// twice\n.version 8.5\n"


def kernel(entry="twice", ptx=PTX, threads=128):
    launch = Launch(
        op="Twice",
        inputs=(TensorType("float16", (1, 3, 2, 4)),),
        output=TensorType("float16", (1, 3, 2, 4)),
        cast_to="float16",
        entry=entry,
        ptx_sha256=hashlib.sha256(ptx.encode()).hexdigest(),
        grid=(8, 1, 1),
        threads=threads,
        shared_bytes=1024,
        integers=(24,),
    )
    return Kernel(launch, compress(ptx))


@pytest.fixture
def path(tmp_path):
    """A package with kernels for two nodes, one of them for two kinds of GPU."""
    kernels = [("first", "8.7", kernel()), ("first", "11.0", kernel(ptx="// thor")), ("second", "8.7", kernel())]
    package = Package.of(kernels, {"third": "the shape of x is open"})
    write_package(tmp_path / "m.kernels", package, SPEC, "0" * 64, "3.9.0")
    return tmp_path / "m.kernels"


def test_kernels_come_back_for_the_gpu_that_is_asked_for(path):
    package = read_package(path, "0" * 64)
    assert package.kernels("8.7") == {"first": kernel(), "second": kernel()}
    assert package.kernels("11.0") == {"first": kernel(ptx="// thor")}
    assert package.kernels("8.6") == {}
    assert package.compute_capabilities == ("8.7", "11.0")
    assert package.left == {"third": "the shape of x is open"}


def test_code_that_calls_share_is_held_once(path):
    assert sorted(zlib.decompress(ptx) for ptx in read_package(path, "0" * 64).ptx.values()) == [
        b"// thor",
        PTX.encode(),
    ]


def test_the_same_kernels_give_the_same_bytes(path, tmp_path):
    again = tmp_path / "again.kernels"
    write_package(again, read_package(path, "0" * 64), SPEC, "0" * 64, "3.9.0")
    assert again.read_bytes() == path.read_bytes()


def test_kernels_of_another_model_are_refused_with_the_command_to_run(path):
    with pytest.raises(ArtifactError) as refusal:
        read_package(path, "1" * 64)
    assert str(refusal.value) == (
        f"{path} holds the kernels of another model. Make those of this one with: roadseg kernels MODEL.onnx "
        f"--compute-capability 8.7 --compute-capability 11.0 --out {path}"
    )


def test_a_package_that_was_cut_short_is_refused(path):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="not the file its manifest describes"):
        read_package(path, "0" * 64)


def test_a_package_of_another_layout_is_refused(path, tmp_path):
    beside = manifest_path(path)
    manifest = msgspec.json.decode(beside.read_bytes())
    data = msgspec.msgpack.encode({"launches": []})
    path.write_bytes(data)
    manifest |= {"file_sha256": hashlib.sha256(data).hexdigest(), "manifest_sha256": ""}
    from roadseg.runtime import Manifest

    beside.write_bytes(msgspec.convert(manifest, Manifest).signed().to_json())
    with pytest.raises(ArtifactError, match="holds no kernels that this roadseg reads"):
        read_package(path, "0" * 64)


def test_a_kernel_comes_back_from_its_bytes():
    assert Kernel.from_bytes(kernel().to_bytes()) == kernel()
    assert Kernel.from_bytes(kernel().to_bytes()).ptx_text == PTX


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "not a kernel that roadseg compiled"),
        (lambda data: b"", "not a kernel that roadseg compiled"),
        (lambda data: dataclasses.replace(kernel(), ptx=compress("// thor")).to_bytes(), "not the one it was"),
        (lambda data: dataclasses.replace(kernel(), ptx=b"?").to_bytes(), "not a kernel that roadseg compiled"),
    ],
)
def test_a_damaged_kernel_is_refused(damage, message):
    with pytest.raises(ArtifactError, match=message):
        Kernel.from_bytes(damage(kernel().to_bytes()))
