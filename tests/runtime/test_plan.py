import dataclasses
import sys
from types import SimpleNamespace

import msgspec
import pytest

from roadseg.runtime import (
    ArtifactError,
    EngineError,
    Manifest,
    ModelSpec,
    manifest_path,
    plan,
    sha256_bytes,
    write_with_manifest,
)
from roadseg.runtime.cuda import Gpu
from roadseg.runtime.plan import OpRoad, PlanDetails, TensorInfo, check_plan, read_plan

DETAILS = PlanDetails(
    flavour="rtx",
    version="1.7.1.116",
    compute_capabilities=("8.6", "8.9"),
    gpu="",
    driver="",
    precision="int8",
    dialect="typed",
    batch=1,
    input=TensorInfo("frames", "uint8", (1, 2, 4, 3)),
    output=TensorInfo("labels", "uint8", (1, 2, 4)),
    workspace_bytes=None,
    provenance={"net": "tiny"},
)
SPEC = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))


@pytest.fixture
def plan_file(tmp_path):
    """Writes a plan with these details; what is in it is never looked at."""

    def write(**changes):
        path = tmp_path / "m.plan"
        details = dataclasses.replace(DETAILS, **changes)
        data = b"serialised"
        write_with_manifest(
            path,
            data,
            Manifest("plan", sha256_bytes(data), SPEC, {"onnx": "0" * 64}, msgspec.to_builtins(details)),
        )
        return path

    return write


@pytest.fixture
def gpu(monkeypatch):
    """This machine has a GPU of compute capability 8.6."""
    monkeypatch.setattr(plan, "find_gpu", lambda: Gpu("NVIDIA RTX A2000", "8.6", "12.6"))


@pytest.fixture
def no_gpu(monkeypatch):
    def fail():
        raise EngineError("this machine has no NVIDIA driver (libcuda.so.1 was not found)")

    monkeypatch.setattr(plan, "find_gpu", fail)


def test_a_plan_is_described_by_its_manifest_alone(plan_file, no_gpu):
    manifest, details = read_plan(plan_file())
    assert manifest.spec == SPEC
    assert details == DETAILS


def test_a_plan_for_this_gpu_and_library_is_accepted(plan_file, gpu):
    version = pytest.importorskip("tensorrt_rtx").__version__
    assert check_plan(plan_file(version=version), "rtx")[1].version == version


def test_without_a_gpu_one_sentence_says_what_is_missing(plan_file, no_gpu):
    path = plan_file()
    with pytest.raises(EngineError) as refusal:
        check_plan(path, "rtx")
    assert str(refusal.value) == (
        f"this machine has no NVIDIA driver (libcuda.so.1 was not found), so {path} can be checked here but not "
        "run: it needs an NVIDIA GPU of compute capability 8.6 or 8.9."
    )


def test_a_plan_for_another_gpu_is_refused_with_the_command_to_run(plan_file, gpu):
    path = plan_file(compute_capabilities=("12.0",))
    with pytest.raises(
        EngineError, match=r"built for GPUs of compute capability 12\.0, .*RTX A2000 has 8\.6"
    ) as refusal:
        check_plan(path, "rtx")
    assert str(refusal.value).endswith(
        f"roadseg build MODEL.onnx --flavour rtx --compute-capability 8.6 --out {path}"
    )


def test_a_plan_of_another_version_is_refused_with_both_versions(plan_file, gpu):
    installed = pytest.importorskip("tensorrt_rtx").__version__
    path = plan_file(version="1.3.0.35")
    with pytest.raises(EngineError, match=r"TensorRT-RTX 1\.3\.0\.35, which alone can open it") as refusal:
        check_plan(path, "rtx")
    assert installed in str(refusal.value)
    assert str(refusal.value).endswith(f"roadseg build MODEL.onnx --flavour rtx --out {path}")


def test_a_plan_of_the_other_library_is_refused(plan_file, gpu):
    with pytest.raises(EngineError, match="is a TensorRT-RTX plan and cannot be opened with TensorRT"):
        check_plan(plan_file(), "tensorrt")


def test_a_replaced_plan_is_refused_before_anything_else(plan_file, no_gpu):
    path = plan_file()
    path.write_bytes(b"another")
    with pytest.raises(ArtifactError, match="not the file its manifest describes"):
        check_plan(path, "rtx")


def test_an_edited_manifest_is_refused(plan_file, gpu):
    path = plan_file()
    beside = manifest_path(path)
    beside.write_text(beside.read_text().replace('"8.9"', '"8.7"'))
    with pytest.raises(ArtifactError, match="was edited"):
        check_plan(path, "rtx")


def test_details_of_another_layout_are_refused(tmp_path):
    path = tmp_path / "m.plan"
    write_with_manifest(path, b"data", Manifest("plan", "", SPEC, {}, {"flavour": "rtx"}))
    with pytest.raises(ArtifactError, match="missing required field"):
        read_plan(path)


@pytest.fixture
def tensorrt(monkeypatch):
    """Installs something that says it is TensorRT of a version."""

    def install(version):
        monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
        return {"flavour": "tensorrt", "version": version, "compute_capabilities": ("8.6",)}

    return install


def test_a_plan_needs_no_plugins_where_its_operators_are_in_it(plan_file, gpu, tensorrt):
    roads = {"attend": OpRoad("CrissCrossAttention", "plugin-aot"), "mask": OpRoad("PSAMask", "function")}
    path = plan_file(roads=roads, **tensorrt("10.13.3.9"))
    assert check_plan(path, "tensorrt")[1].roads == roads


def test_a_plan_whose_plugin_cannot_be_had_is_refused_with_its_name_before_it_is_opened(plan_file, gpu, tensorrt):
    roads = {"attend": OpRoad("CrissCrossAttention", "plugin-v3")}
    path = plan_file(roads=roads, **tensorrt("8.6.2"))
    with pytest.raises(EngineError) as refusal:
        check_plan(path, "tensorrt")
    assert str(refusal.value) == (
        f"{path} cannot be opened: the plugin roadseg::CrissCrossAttention cannot be had here: TensorRT 8.6.2 "
        "takes no plugins that are written in Python; 10.0 and later do. Or build it again without plugins: "
        f"roadseg build MODEL.onnx --flavour tensorrt --plugins never --out {path}"
    )


def test_a_plan_whose_plugins_can_be_had_is_accepted_once_they_are_registered(
    plan_file, gpu, tensorrt, monkeypatch
):
    provided = []
    monkeypatch.setattr(plan, "provide", lambda library, ops: provided.append((library.__version__, ops)))
    roads = {name: OpRoad("PSAMask", "plugin-v3") for name in ("first", "second")}
    check_plan(plan_file(roads=roads, **tensorrt("10.3.0")), "tensorrt")
    assert provided == [("10.3.0", {"PSAMask"})]


def test_manifests_from_before_there_were_plugins_are_read(tmp_path):
    path = tmp_path / "m.plan"
    details = msgspec.to_builtins(DETAILS)
    del details["roads"]
    write_with_manifest(path, b"data", Manifest("plan", "", SPEC, {}, details))
    assert read_plan(path)[1].roads == {}
