"""Small models and data sets made on the spot."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from roadseg.runtime import CAMVID, Key, LabelSet, ModelSpec, Sample, sha256_bytes
from roadseg.runtime.onnxfile import (
    PRECISION_KEY,
    PROVENANCE_KEY,
    SPEC_KEY,
    load_onnx,
    onnx_spec,
    save_onnx,
    set_metadata,
)


@dataclasses.dataclass(frozen=True)
class Frames:
    """A data set in memory."""

    frames: tuple[np.ndarray, ...]
    keys: tuple[Key, ...]
    split: str = "train"
    name: str = "folder:/somewhere/on/this/machine/drive"
    label_set: LabelSet = CAMVID
    labels: tuple[np.ndarray, ...] = ()
    """Of every frame, or of none."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def fingerprint(self) -> str:
        return sha256_bytes(b"".join(array.tobytes() for array in (*self.frames, *self.labels)))

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.keys[index], self.frames[index], self.labels[index] if self.labels else None)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def smooth_frame(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random colours on an 8x8 grid, interpolated."""
    grid = rng.uniform(0, 255, (8, 8, 3))
    rows, columns = np.linspace(0, 7, height), np.linspace(0, 7, width)
    grid = np.stack([[np.interp(columns, range(8), line[:, c]) for line in grid] for c in range(3)], axis=-1)
    grid = np.stack([[np.interp(rows, range(8), grid[:, x, c]) for x in range(width)] for c in range(3)], axis=-1)
    return np.ascontiguousarray(grid.transpose(1, 0, 2)).round().astype(np.uint8)


@pytest.fixture(scope="session")
def scenes():
    """A function that makes a data set of smooth random frames, in groups of the given sizes."""

    def make(height: int = 8, width: int = 8, groups: tuple[int, ...] = (3, 2), split: str = "train") -> Frames:
        rng = np.random.default_rng(0)
        keys = tuple(Key(f"{g}_{i}", str(g)) for g, size in enumerate(groups) for i in range(size))
        return Frames(tuple(smooth_frame(rng, height, width) for _ in keys), keys, split)

    return make


@pytest.fixture
def frames(scenes) -> Frames:
    """Six frames of 8x8."""
    return scenes(groups=(6,))


@pytest.fixture(scope="session")
def graph():
    """A function that makes a model of ONNX text; weights not given are drawn at random."""

    def parse(text: str, **weights: np.ndarray | tuple[int, ...]) -> onnx.ModelProto:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
        rng = np.random.default_rng(0)
        for name, array in weights.items():
            if isinstance(array, tuple):
                array = rng.normal(0, 0.3, array).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return model

    return parse


@pytest.fixture(scope="session")
def save():
    """A function that writes a model as export does, with spec, precision and provenance inside."""

    def write(path: Path, model: onnx.ModelProto, spec: ModelSpec) -> Path:
        entries = {SPEC_KEY: spec.to_json(), PRECISION_KEY: "fp32", PROVENANCE_KEY: '{"checkpoint":"c0ffee"}'}
        set_metadata(model, entries)
        save_onnx(path, model)
        return path

    return write


@pytest.fixture
def small(graph, save, tmp_path: Path) -> Path:
    """Frames of 8x8 to labels of two classes, by two convolutions."""
    model = graph(
        """small (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            images = Transpose<perm=[0,3,1,2]>(bytes)
            pixels = Mul(images, unit)
            first = Conv<pads=[1,1,1,1]>(pixels, w1, b1)
            active = Relu(first)
            logits = Conv(active, w2)
            best = ArgMax<axis=1, keepdims=0>(logits)
            labels = Cast<to=2>(best)
        }""",
        unit=np.array(1 / 255, np.float32),
        w1=(4, 3, 3, 3),
        b1=(4,),
        w2=(2, 4, 1, 1),
    )
    return save(tmp_path / "small.onnx", model, ModelSpec("small", 8, 8, classes=("road", "sky")))


BRANCHES = """g (uint8[1,16,16,3] frames) => (uint8[1,16,16] labels) {
    bytes = Cast<to=1>(frames)
    images = Transpose<perm=[0,3,1,2]>(bytes)
    pixels = Mul(images, unit)
    c0 = Conv<pads=[1,1,1,1]>(pixels, w0)
    stem = Relu(c0)
    c1 = Conv<pads=[1,1,1,1]>(stem, w1)
    left = Relu(c1)
    c2 = Conv<pads=[1,1,1,1]>(stem, w2)
    right = Relu(c2)
    both = Concat<axis=1>(left, right)
    c3 = Conv<pads=[1,1,1,1]>(both, w3)
    deep = Relu(c3)
    c4 = Conv<pads=[1,1,1,1]>(deep, w4)
    last = Relu(c4)
    logits = Conv(last, w5)
    best = ArgMax<axis=1, keepdims=0>(logits)
    labels = Cast<to=2>(best)
}"""
"""Two branches that are concatenated, and share a scale."""


@pytest.fixture
def branches(graph, save, tmp_path):
    """A function that makes a small network of two branches; the seed of its weights is in the file's name."""

    def make(seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        shapes = [(8, 3, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (8, 16, 3, 3), (8, 8, 3, 3), (2, 8, 1, 1)]
        sizes = np.exp(rng.normal(0, 0.7, len(shapes)))  # what training changes from layer to layer
        weights = {f"w{i}": (rng.normal(0, 0.2, s) * sizes[i]).astype(np.float32) for i, s in enumerate(shapes)}
        model = graph(BRANCHES, unit=np.array(1 / 255, np.float32), **weights)
        spec = ModelSpec("branches", 16, 16, classes=("road", "sky"))
        return save(tmp_path / f"branches_{seed}.onnx", model, spec)

    return make


MOBILE = """g (float[1,3,16,16] images) => (float[1,2,16,16] logits) {
    stem = Conv<pads=[1,1,1,1]>(images, w0, b0)
    x = Relu(stem)
    expanded = Conv(x, w1, b1)
    wide = PRelu(expanded, slope)
    filtered = Conv<group=8, pads=[1,1,1,1]>(wide, w2, b2)
    deep = Relu(filtered)
    projected = Conv(deep, w3, b3)
    sum = Add(projected, x)
    logits = Conv(sum, w4)
}"""
"""An inverted residual block as MobileNetV2 has them, with a PReLU."""


@pytest.fixture
def mobile(graph, save, tmp_path):
    """A small mobile network whose channels differ by factors of up to 30."""
    rng = np.random.default_rng(1)
    wide = rng.normal(0, 1, (8, 4, 1, 1)) * np.geomspace(0.5, 15, 8).reshape(8, 1, 1, 1)
    model = graph(
        MOBILE,
        w0=(4, 3, 3, 3),
        b0=(4,),
        w1=wide.astype(np.float32),
        b1=np.full(8, 0.1, np.float32),
        slope=np.full((8, 1, 1), 0.25, np.float32),
        w2=(8, 1, 3, 3),
        b2=(8,),
        w3=(4, 8, 1, 1),
        b3=(4,),
        w4=(2, 4, 1, 1),
    )
    return save(tmp_path / "mobile.onnx", model, ModelSpec("mobile", 16, 16, classes=("road", "sky"), io="tensor"))


@pytest.fixture(scope="session")
def fastscnn(save, scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fast-SCNN with random weights, whose batch norms have seen frames, as a frame model of 96x128."""
    import torch

    from roadseg.runtime.backends.torch import FrameNet, Normalise
    from roadseg.train.models.fastscnn import FastSCNN

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spec = ModelSpec("fastscnn", 96, 128, classes=CAMVID.classes)
    net = FastSCNN(len(spec.classes))
    frames = torch.from_numpy(np.stack(scenes(96, 128, groups=(4,)).frames))
    with torch.no_grad():
        for _ in range(5):
            net(Normalise(spec)(frames))
    program = torch.onnx.export(
        FrameNet(net, spec).eval(),
        (frames[:1],),
        input_names=["frames"],
        output_names=["labels"],
        opset_version=20,
        dynamo=True,
        verbose=False,
    )
    torch.set_num_threads(threads)
    assert program is not None
    return save(tmp_path_factory.mktemp("fastscnn") / "fastscnn.onnx", program.model_proto, spec)


@pytest.fixture(scope="session")
def tensors():
    """A function that gives tensors inside a model, by name, for each frame of a data set."""
    from roadseg.calib import observe

    def look(path: Path, names: list[str], dataset: Frames) -> list[dict[str, np.ndarray]]:
        model = load_onnx(path)
        spec = onnx_spec(model, path)
        frames = observe.Frames(dataset, spec, len(dataset), 0, False)
        return list(observe.observe(model, spec, names, frames, "look"))

    return look


@pytest.fixture
def spoilt(graph, save, tmp_path):
    """Three convolutions. Of what the second reads, one map is ten thousand times larger, and has no weight."""
    model = graph(
        """g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            planes = Transpose<perm=[0,3,1,2]>(bytes)
            first = Conv(planes, w1)
            second = Conv(first, w2)
            third = Conv(second, w3, b3)
            best = ArgMax<axis=1, keepdims=0>(third)
            labels = Cast<to=2>(best)
        }""",
        w1=np.array([1e4, 1, 1, 1], np.float32)[:, None, None, None]
        * np.random.default_rng(1).uniform(0.1, 1, (4, 3, 1, 1)).astype(np.float32),
        w2=np.array([0, 1, 1, 1], np.float32)[None, :, None, None]
        * np.random.default_rng(2).normal(size=(4, 4, 1, 1)).astype(np.float32),
        w3=(2, 4, 1, 1),
        b3=np.array([0, 0], np.float32),
    )
    return save(tmp_path / "spoilt.onnx", model, ModelSpec("spoilt", 8, 8, classes=("road", "sky")))


@pytest.fixture
def hopeless(graph, save, tmp_path):
    """One layer, which reads a map ten thousand times larger than those that count."""
    model = graph(
        """g (uint8[1,8,8,3] frames) => (uint8[1,8,8] labels) {
            bytes = Cast<to=1>(frames)
            planes = Transpose<perm=[0,3,1,2]>(bytes)
            maps = Mul(planes, unlike)
            logits = Conv(maps, w)
            best = ArgMax<axis=1, keepdims=0>(logits)
            labels = Cast<to=2>(best)
        }""",
        unlike=np.array([1e4, 1, 1], np.float32)[:, None, None],
        w=np.array([[0, 1, -1], [0, -1, 1]], np.float32)[:, :, None, None],
    )
    return save(tmp_path / "only.onnx", model, ModelSpec("only", 8, 8, classes=("road", "sky")))
