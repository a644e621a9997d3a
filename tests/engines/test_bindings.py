"""Real Python bindings of several TensorRT versions have all that our code uses of them.

The bindings are on PyPI without TensorRT's libraries. They load once libraries with the few C functions they
import are there; these here do nothing, so only the interface can be looked at, and nothing can be run.
"""

import fcntl
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

SURFACE = Path(__file__).with_name("surface.py")
PLUGINS = Path(__file__).with_name("use_plugins.py")
CACHE = Path(__file__).parents[2] / "build" / "bindings"


class Release(NamedTuple):
    """A TensorRT whose bindings are looked at."""

    package: str
    dialect: str
    """The one we speak with it."""
    flags: int
    """What `create_network` gets; NvInfer.h has explicit batch as bit 0, and strongly typed as bit 1 until 11."""


RELEASES = {
    "8.6.1": Release("tensorrt-bindings", "legacy", 0b01),  # JetPack 6.0
    "10.3.0": Release("tensorrt-cu12-bindings", "legacy", 0b01),  # JetPack 6.1 and 6.2
    "10.13.3.9": Release("tensorrt-cu12-bindings", "typed", 0b10),  # JetPack 7.0 and 7.1
    "10.16.1.11": Release("tensorrt-cu12-bindings", "typed", 0b10),  # JetPack 7.2
    "11.4.0.106": Release("tensorrt-cu13-bindings", "typed", 0),
}

USE_PIECES = """
import tensorrt_bindings as library
from roadseg.engines import network, tensorrt
from roadseg.runtime.messages import logger

dialect = tensorrt.dialect_for(library.__version__)
print(dialect.name, tensorrt.network_flags(library, dialect))
print(sorted(set(network.DTYPES) - set(library.DataType.__members__)))
logger(library).log(library.ILogger.ERROR, "broken")
print(logger(library).take())
if dialect.name == "legacy":
    cache = tensorrt.cache_reader(library, b"TRT-1-x\\nimages: 3c010a14")
    print(cache.get_algorithm(), cache.read_calibration_cache().splitlines()[1:])
"""

ATTEND = {
    "creators": [["Attend", "1", "roadseg"]],
    "declared": [["kernel", "INT32"]],
    "types": ["FLOAT"],
    "shapes": [[1, 16, 24]],
    "wrong type": "the kernel attend_kernel is compiled for HALF, HALF; it gets FLOAT, HALF.",
}
"""What is seen of the operator in `use_plugins.py` in either kind of plugin."""


@pytest.fixture(params=RELEASES)
def version(request):
    """A TensorRT version."""
    return request.param


@pytest.fixture
def folder(version):
    """Where that version's bindings can be imported from."""
    return unpacked(RELEASES[version].package, version, lambda folder: link(folder / "tensorrt_bindings"))


@pytest.fixture
def numpy_1():
    """Where the numpy can be imported from that older bindings were made for."""
    return unpacked("numpy", "1.26.4")


def unpacked(package, version, finish=lambda folder: None):
    """The folder where a wheel is unpacked, and `finish` has been called once."""
    folder = CACHE / f"{package}-{version}-{sys.implementation.cache_tag}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not folder.is_dir():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            download(f"{package}=={version}", partial)
            finish(partial)
            partial.rename(folder)
    return str(folder)


def download(requirement, folder):
    """Unpack a wheel; the test is skipped where there is none for this Python, or no network."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", folder, requirement]
    result = subprocess.run(pip, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"{requirement} cannot be downloaded: {result.stderr.strip().splitlines()[-1]}")
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)


def link(package):
    """Put libraries beside the bindings that have the functions they ask for."""
    compiler, nm = shutil.which("cc"), shutil.which("nm")
    if not compiler or not nm:
        pytest.skip("no C compiler or no nm to make the libraries that the bindings load")
    bindings = package / "tensorrt.so"
    symbols = output(nm, "-D", "--undefined-only", bindings)
    functions = re.findall(
        r" U ((?:create|get|init)(?:Infer|NvOnnx|Lib|Plugin|Builder)\w+|_ZN\d+nv\w+)$", symbols, re.M
    )
    source = package / "functions.c"
    source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions))
    for name in re.findall(rb"libnv\w+\.so\.\d+", bindings.read_bytes()):
        output(compiler, "-shared", "-fPIC", f"-Wl,-soname,{name.decode()}", "-o", package / name.decode(), source)


def output(*command, **environment):
    """What a command prints; its error fails the test."""
    result = subprocess.run(command, capture_output=True, text=True, env=environment or None)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_version_has_all_that_its_dialect_uses(version, folder):
    dialect = RELEASES[version].dialect
    assert output(sys.executable, SURFACE, "tensorrt_bindings", dialect, PYTHONPATH=folder) == ""


def test_our_pieces_work_with_a_version(version, folder):
    release = RELEASES[version]
    lines = output(sys.executable, "-c", USE_PIECES, PYTHONPATH=folder).splitlines()
    assert lines[:3] == [f"{release.dialect} {release.flags}", "[]", "['broken']"]
    if release.dialect == "legacy":
        assert lines[3] == "CalibrationAlgoType.ENTROPY_CALIBRATION_2 [b'images: 3c010a14']"


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"])
def test_a_version_has_all_that_python_plugins_use(version, folder):
    assert output(sys.executable, SURFACE, "tensorrt_bindings", "plugins", PYTHONPATH=folder) == ""


@pytest.mark.parametrize("version", ["8.6.1"])
def test_what_python_plugins_need_is_found_missing_from_tensorrt_8(version, folder):
    missing = output(sys.executable, SURFACE, "tensorrt_bindings", "plugins", PYTHONPATH=folder).splitlines()
    assert {"IPluginV3 is missing", "IPluginCreatorV3One is missing"} <= set(missing)


@pytest.mark.parametrize("version", ["11.4.0.106"])
def test_what_tensorrt_11_removed_is_found_missing_from_the_legacy_dialect(version, folder):
    missing = output(sys.executable, SURFACE, "tensorrt_bindings", "legacy", PYTHONPATH=folder)
    assert missing.splitlines() == [
        "BuilderFlag.FP16 is missing",
        "BuilderFlag.INT8 is missing",
        "IBuilderConfig.int8_calibrator is missing",
        "IInt8EntropyCalibrator2 is missing",
        "IInt8EntropyCalibrator2.__init__ is missing",
    ]


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"])
def test_a_python_plugin_lives_from_registration_to_launch(version, folder, request):
    path = [folder] if version[:5] in ("10.16", "11.4.") else [request.getfixturevalue("numpy_1"), folder]
    seen = json.loads(output(sys.executable, PLUGINS, "v3", PYTHONPATH=os.pathsep.join(path)))
    # The kernel takes both inputs, its three integers and the output, in this order.
    inputs, integers, answer = ((0x1000, 0x2000), (24, 8, 16), 0x3000)
    arguments = [["c_void_p", i] for i in inputs] + [["c_int", i] for i in integers] + [["c_void_p", answer]]
    assert seen == ATTEND | {
        "is": [True] * 4,
        "identity": ["Attend", "1", "roadseg", 1],
        "capable": [True] * 3,
        "takes": [True] * 3,
        "takes others": [False, False],
        "kept": [["kernel", "CHAR"]],
        "the same": [True] * 3,
        "launched": [[True, [3, 2, 1], 256, arguments, 77]],
        "wrong shape": "the kernel attend_kernel is launched for inputs of [(1, 8, 4, 6), (1, 8, 4, 6)]; "
        "it gets [(1, 8, 4, 6), (1, 8, 4, 5)].",
    }


@pytest.mark.parametrize("version", ["10.13.3.9", "10.16.1.11", "11.4.0.106"])
def test_an_ahead_of_time_plugin_gives_its_code_and_its_launch(version, folder):
    # The first line is a warning of TensorRT's own, that all this is experimental.
    seen = json.loads(output(sys.executable, PLUGINS, "aot", PYTHONPATH=folder).splitlines()[-1])
    block, grid = {"block_x": 256, "block_y": 1, "block_z": 1}, {"grid_x": 3, "grid_y": 2, "grid_z": 1}
    assert seen == ATTEND | {
        "outputs": 1,
        "launch": grid | block | {"shared_mem": 4096},
        "integers": [3, ["SymInt32", 24], ["SymInt32", 8], ["SymInt32", 16]],
        "code": ["attend_kernel", True],
    }


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("8.6.1", r"TensorRT 8\.6\.1 takes no plugins that are written in Python; 10\.0 and later do"),
        ("10.3.0", r".* 10\.3\.0 cannot read their own data under numpy 2.*: pip install 'numpy<2'"),
        ("10.13.3.9", r".* 10\.13\.3\.9 cannot read their own data under numpy 2.*: pip install 'numpy<2'"),
        ("10.16.1.11", ""),
        ("11.4.0.106", ""),
    ],
)
def test_a_version_that_can_have_no_python_plugins_says_why(version, folder, why):
    if "numpy" in why and int(np.__version__.partition(".")[0]) < 2:
        pytest.skip("this numpy is one that the bindings were made for")
    code = "import tensorrt_bindings as trt; from roadseg.runtime.plugins import v3; print(v3.obstacle(trt))"
    assert re.fullmatch(why, output(sys.executable, "-c", code, PYTHONPATH=folder).strip())


def test_tensorrt_rtx_has_all_that_is_used_of_it():
    pytest.importorskip("tensorrt_rtx")
    assert output(sys.executable, SURFACE, "tensorrt_rtx", "rtx") == ""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("config.set_flags(1)", "IBuilderConfig.set_flags is missing"),
        ("library.BuilderFlag.FP17", "BuilderFlag.FP17 is missing"),
        ("config.set_memory_pool_limit(pool)", "IBuilderConfig.set_memory_pool_limit does not take 1 arguments"),
        (
            "config.set_memory_pool_limit(pool, bytes=1)",
            "IBuilderConfig.set_memory_pool_limit does not take 1 arguments",
        ),
    ],
)
def test_a_wrong_use_is_noticed(line, problem):
    library = pytest.importorskip("tensorrt_rtx")
    surface = runpy.run_path(str(SURFACE))
    (use,) = (
        use
        for use in surface["uses"](f"def f(library, config, pool):\n    {line}\n", {"config": "IBuilderConfig"})
        if use.owner
    )
    assert surface["problem"](library, use).startswith(problem)
