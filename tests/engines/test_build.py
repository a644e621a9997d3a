import json

import numpy as np
import pytest

from roadseg.engines import Settings, build
from roadseg.runtime import ArtifactError, BuildError, EngineError, UsageError, manifest_path, sha256_file
from roadseg.runtime.backends.tensorrt_rtx import TensorRTRTXBackend
from roadseg.runtime.cuda import find_gpu
from roadseg.runtime.plan import FLAVOURS, read_plan

pytest.importorskip("tensorrt_rtx")


def has_gpu():
    try:
        return bool(find_gpu())
    except EngineError:
        return False


without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_without_a_gpu_and_says_what_it_is(save_segmenter, tmp_path, spec, precision):
    model, plan = save_segmenter(precision), tmp_path / "m.plan"
    returned = build(model, plan, flavour="rtx", compute_capability="8.6")
    manifest, details = read_plan(plan)
    assert manifest == returned
    assert manifest.spec == spec
    assert manifest.inputs == {"onnx": sha256_file(model)}
    assert (details.flavour, details.precision, details.dialect) == ("rtx", precision, "typed")
    assert details.compute_capabilities == ("8.6",)
    assert (details.gpu, details.driver) == ("", "")
    assert (details.input.name, details.input.dtype, details.input.shape) == ("frames", "uint8", (1, 32, 64, 3))
    assert (details.output.name, details.output.dtype, details.output.shape) == ("labels", "uint8", (1, 32, 64))


def test_the_same_model_gives_the_same_bytes(save_segmenter, tmp_path):
    model = save_segmenter("int8")
    first, second = tmp_path / "first.plan", tmp_path / "second.plan"
    for plan in (first, second):
        build(model, plan, flavour="rtx", compute_capability="8.9")
    assert first.read_bytes() == second.read_bytes()
    assert manifest_path(first).read_bytes() == manifest_path(second).read_bytes()


def test_every_gpu_since_ampere_is_meant_where_none_is_named(save_segmenter, tmp_path):
    build(save_segmenter(), tmp_path / "m.plan", flavour="rtx")
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(read_plan(tmp_path / "m.plan")[1].compute_capabilities)
    assert "7.5" not in read_plan(tmp_path / "m.plan")[1].compute_capabilities


def test_an_open_batch_is_bounded_by_the_settings(save_segmenter, tmp_path):
    plan = tmp_path / "m.plan"
    build(save_segmenter(batch="N"), plan, flavour="rtx", compute_capability="8.6", settings=Settings(max_batch=4))
    _, details = read_plan(plan)
    assert details.batch == 4
    assert details.input.shape == (-1, 32, 64, 3)


def test_the_workspace_limit_is_recorded(save_segmenter, tmp_path):
    plan = tmp_path / "m.plan"
    settings = Settings(workspace_bytes=1 << 26)
    build(save_segmenter(), plan, flavour="rtx", compute_capability="8.6", settings=settings)
    assert read_plan(plan)[1].workspace_bytes == 67108864


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_refused_with_those_it_does(save_segmenter, tmp_path):
    with pytest.raises(BuildError, match=r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1, not for '8\.7'"):
        build(save_segmenter(), tmp_path / "m.plan", flavour="rtx", compute_capability="8.7")
    assert not (tmp_path / "m.plan").exists()


def test_settings_of_the_other_library_are_refused(save_segmenter, tmp_path):
    with pytest.raises(UsageError, match="takes no timing cache, precision or ranges"):
        build(save_segmenter(), tmp_path / "m.plan", flavour="rtx", settings=Settings(precision="int8"))


def test_a_truncated_model_is_refused(save_segmenter, tmp_path):
    model = save_segmenter()
    model.write_bytes(model.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="not an ONNX model, or was cut short"):
        build(model, tmp_path / "m.plan", flavour="rtx")


def test_a_missing_model_is_said_to_be_missing(tmp_path):
    with pytest.raises(ArtifactError, match=r"m\.onnx cannot be read: No such file"):
        build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx")


@without_gpu
def test_auto_is_tensorrt_rtx_where_there_is_no_gpu(save_segmenter, tmp_path):
    build(save_segmenter(), tmp_path / "m.plan", compute_capability="8.6")
    assert read_plan(tmp_path / "m.plan")[1].flavour == "rtx"


@without_gpu
def test_tensorrt_without_a_gpu_is_one_sentence(save_segmenter, tmp_path):
    model = save_segmenter()
    with pytest.raises(BuildError) as refusal:
        build(model, tmp_path / "m.plan", flavour="tensorrt")
    assert str(refusal.value) == (
        "this machine has no NVIDIA driver (libcuda.so.1 was not found), and TensorRT builds only on the GPU an "
        f"engine is for. Build {model} there, or with --flavour rtx."
    )


@without_gpu
def test_opening_an_engine_without_a_gpu_names_what_is_missing(save_segmenter, tmp_path):
    build(save_segmenter(), tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    with pytest.raises(
        EngineError, match=r"no NVIDIA driver .* needs an NVIDIA GPU of compute capability 8\.6\.$"
    ):
        TensorRTRTXBackend(tmp_path / "m.plan")


def test_nothing_is_printed(save_segmenter, tmp_path, capfd):
    build(save_segmenter(), tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    assert capfd.readouterr() == ("", "")


def test_the_manifest_names_no_folder_of_this_machine(save_segmenter, tmp_path):
    build(save_segmenter(), tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    assert str(tmp_path) not in manifest_path(tmp_path / "m.plan").read_text()
    assert json.loads(manifest_path(tmp_path / "m.plan").read_text())["kind"] == "plan"


@pytest.mark.gpu
@pytest.mark.parametrize("flavour", list(FLAVOURS))
@pytest.mark.parametrize(("precision", "agreement"), [("fp32", 0.999), ("fp16", 0.99), ("int8", 0.95)])
def test_an_engine_answers_as_onnxruntime_does(save_segmenter, tmp_path, spec, flavour, precision, agreement):
    pytest.importorskip("pycuda")
    pytest.importorskip(FLAVOURS[flavour].module)
    import onnxruntime

    from roadseg.runtime.backends.tensorrt import TensorRTBackend

    model, plan = save_segmenter(precision, batch="N"), tmp_path / "m.plan"
    build(model, plan, flavour=flavour, settings=Settings(max_batch=2))
    if find_gpu().compute_capability not in read_plan(plan)[1].compute_capabilities:
        pytest.skip(f"{FLAVOURS[flavour].title} does not build for {find_gpu()}")
    frames = np.random.default_rng(1).integers(0, 256, (3, *spec.size, 3), np.uint8)
    backend = (TensorRTRTXBackend if flavour == "rtx" else TensorRTBackend)(plan)
    labels = backend(frames)
    backend.close()
    (expected,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"frames": frames}
    )
    assert np.mean(labels == expected) >= agreement
