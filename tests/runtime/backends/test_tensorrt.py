import msgspec
import pytest

from roadseg.runtime import ArtifactError, EngineError, Manifest, ModelSpec, Segmenter, plan, write_with_manifest
from roadseg.runtime.backends.tensorrt import TensorRTBackend
from roadseg.runtime.backends.tensorrt_rtx import TensorRTRTXBackend
from roadseg.runtime.cuda import Gpu
from roadseg.runtime.plan import PlanDetails, TensorInfo


@pytest.fixture
def save_plan(tmp_path):
    """Writes a plan of a flavour and version whose content is not one."""

    def write(flavour, version):
        path = tmp_path / "m.plan"
        details = PlanDetails(
            flavour=flavour,
            version=version,
            compute_capabilities=("8.6",),
            gpu="",
            driver="",
            precision="fp32",
            dialect="typed",
            batch=1,
            input=TensorInfo("frames", "uint8", (1, 2, 4, 3)),
            output=TensorInfo("labels", "uint8", (1, 2, 4)),
            workspace_bytes=None,
            provenance={},
        )
        spec = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))
        write_with_manifest(path, b"no plan", Manifest("plan", "", spec, {}, msgspec.to_builtins(details)))
        return path

    return write


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(plan, "find_gpu", lambda: Gpu("NVIDIA RTX A2000", "8.6", "12.6"))


@pytest.fixture
def no_gpu(monkeypatch):
    def fail():
        raise EngineError("this machine has no NVIDIA driver (libcuda.so.1 was not found)")

    monkeypatch.setattr(plan, "find_gpu", fail)


@pytest.mark.parametrize(("backend", "flavour"), [(TensorRTBackend, "tensorrt"), (TensorRTRTXBackend, "rtx")])
def test_without_a_gpu_opening_is_refused_in_one_sentence(save_plan, no_gpu, backend, flavour):
    path = save_plan(flavour, "1.7.1.116")
    with pytest.raises(
        EngineError, match=r"^this machine has no NVIDIA driver .* compute capability 8\.6\.$"
    ) as error:
        backend(path)
    assert "cudaError" not in str(error.value)


def test_a_segmenter_opens_a_plan_with_the_library_it_was_made_by(save_plan, no_gpu):
    for flavour in ("tensorrt", "rtx"):
        with pytest.raises(EngineError, match="this machine has no NVIDIA driver"):
            Segmenter.open(save_plan(flavour, "1.7.1.116"))


def test_a_backend_refuses_the_plan_of_the_other_library(save_plan, gpu):
    with pytest.raises(EngineError, match="is a TensorRT-RTX plan and cannot be opened with TensorRT"):
        TensorRTBackend(save_plan("rtx", "1.7.1.116"))


def test_a_plan_without_manifest_is_refused(tmp_path):
    (tmp_path / "m.plan").write_bytes(b"serialised")
    with pytest.raises(ArtifactError, match="has no manifest"):
        TensorRTRTXBackend(tmp_path / "m.plan")


@pytest.mark.gpu
def test_what_is_no_engine_is_refused_with_tensorrts_own_words(save_plan, monkeypatch):
    library = pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("pycuda")
    monkeypatch.setattr(plan, "find_gpu", lambda: Gpu("this machine's", "8.6", ""))
    with pytest.raises(EngineError, match=r"m\.plan cannot be opened: "):
        TensorRTRTXBackend(save_plan("rtx", library.__version__))
