"""The reference: its normalisation, its ties, and that export sees the same module."""

import dataclasses

import numpy as np
import pytest

from roadseg.runtime import ModelSpec, SpecError
from roadseg.runtime.pixels import classify, normalise

torch = pytest.importorskip("torch", reason="needs the extra train")

from roadseg.runtime.backends.torch import FrameNet, Normalise, TensorNet, TorchBackend, main_output  # noqa: E402

SPEC = ModelSpec("tiny", height=6, width=8, classes=("road", "sky", "car"))


class Halved(torch.nn.Module):
    """Logits at half the size, linear in the colours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.head(torch.nn.functional.avg_pool2d(images, 2))


class Constant(torch.nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits).reshape(1, -1, 1, 1))

    def forward(self, images):
        return self.logits + 0 * images[:, :1]


def random_frames(number, spec=SPEC):
    return np.random.default_rng(0).integers(0, 256, (number, *spec.size, 3)).astype(np.uint8)


def upsample(logits, size, align_corners):
    """Bilinear, written out pixel by pixel."""
    n, c, rows, columns = logits.shape
    out = np.empty((n, c, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            if align_corners:
                v, u = y * (rows - 1) / (size[0] - 1), x * (columns - 1) / (size[1] - 1)
            else:
                v, u = (y + 0.5) * rows / size[0] - 0.5, (x + 0.5) * columns / size[1] - 0.5
            v, u = np.clip(v, 0, rows - 1), np.clip(u, 0, columns - 1)
            top, left = int(v), int(u)
            low, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = (1 - u + left) * logits[:, :, top, left] + (u - left) * logits[:, :, top, right]
            lower = (1 - u + left) * logits[:, :, low, left] + (u - left) * logits[:, :, low, right]
            out[:, :, y, x] = (1 - v + top) * upper + (v - top) * lower
    return out


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalising_is_that_of_numpy(channels):
    spec = ModelSpec("tiny", 16, 16, channels=channels, mean=(0.1, 0.45, 0.7), std=(0.2, 0.3, 1.0))
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3).copy()
    frames[..., 1] = frames[:, ::-1, :, 1]
    images = Normalise(spec)(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(images, normalise(frames, spec), atol=1e-6)
    assert images.dtype == np.float32


@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_upsampled_by_the_rule_of_the_spec(align_corners):
    spec = dataclasses.replace(SPEC, align_corners=align_corners)
    images = torch.from_numpy(normalise(random_frames(2), spec))
    with torch.inference_mode():
        small = Halved()(images).numpy()
        logits = TensorNet(Halved(), spec)(images).numpy()
    np.testing.assert_allclose(logits, upsample(small, spec.size, align_corners), atol=1e-5)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_labels_are_those_worked_out_step_by_step(channels):
    spec = dataclasses.replace(SPEC, channels=channels)
    frames = random_frames(3)
    with torch.inference_mode():
        small = Halved()(torch.from_numpy(normalise(frames, spec))).numpy()
    labels = TorchBackend(Halved(), spec)(frames)
    np.testing.assert_array_equal(labels, classify(upsample(small, spec.size, True)))
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize(("logits", "label"), [((1.0, 1.0, 1.0), 0), ((0.0, 2.0, 2.0), 1), ((0.0, 1.0, 2.0), 2)])
def test_the_lowest_class_wins_a_tie(logits, label):
    assert (TorchBackend(Constant(*logits), SPEC)(random_frames(2)) == label).all()


@pytest.mark.parametrize("number", [0, 1, 5])
def test_any_number_of_frames_is_answered(number):
    assert TorchBackend(Halved(), SPEC)(random_frames(number)).shape == (number, 6, 8)


@pytest.mark.filterwarnings("error")
def test_turned_and_read_only_frames_are_taken():
    backend = TorchBackend(Halved(), SPEC)
    turned = random_frames(1)[..., ::-1]
    turned.flags.writeable = False
    np.testing.assert_array_equal(backend(turned), backend(np.ascontiguousarray(turned)))


def test_a_network_is_put_into_evaluation():
    net = torch.nn.Sequential(torch.nn.Dropout(0.9), Halved()).train()
    backend = TorchBackend(net, SPEC)
    frames = random_frames(1)
    np.testing.assert_array_equal(backend(frames), backend(frames))
    assert not net.training


def test_the_name_tells_version_and_device():
    assert TorchBackend(Halved(), SPEC).name == f"PyTorch {torch.__version__} CPU"


def test_frames_of_another_size_are_refused():
    with pytest.raises(SpecError, match=r"takes frames of shape \(N, 6, 8, 3\)"):
        TorchBackend(Halved(), SPEC)(random_frames(1, SPEC.resized((8, 6))))


def test_the_main_output_is_found():
    logits, other = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    for output in (
        logits,
        [logits, other],
        (logits,),
        {"aux": other, "out": logits},
        {"main": logits},
        {"out": [logits]},
    ):
        assert main_output(output, SPEC) is logits


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (torch.zeros(1, 19, 2, 2), r"\(1, 19, 2, 2\)"),
        (torch.zeros(1, 2, 2), r"\(1, 2, 2\)"),
        ([], "list"),
        ({}, "NoneType"),
        (None, "NoneType"),
        ("logits", "str"),
    ],
)
def test_what_are_no_logits_is_named(output, what):
    with pytest.raises(SpecError, match=rf"should return logits of shape \(N, 3, h, w\), but returned {what}\."):
        main_output(output, SPEC)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_the_module_exports_and_answers_alike_in_onnx_runtime(tmp_path, dynamic):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    ort = pytest.importorskip("onnxruntime", reason="needs the extra export")
    module = FrameNet(Halved(), SPEC).eval()
    frames = random_frames(2)
    torch.onnx.export(
        module,
        (torch.from_numpy(frames),),
        tmp_path / "m.onnx",
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N")},) if dynamic else None,
        verbose=False,
    )
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    assert taken.type == "tensor(uint8)"
    assert isinstance(taken.shape[0], str) == dynamic
    for number in (2, 1, 5) if dynamic else (2,):
        given = random_frames(number)
        labels = session.run(None, {taken.name: given})[0]
        np.testing.assert_array_equal(labels, TorchBackend(Halved(), SPEC)(given))
        assert labels.dtype == np.uint8
