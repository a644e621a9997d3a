import numpy as np
import pytest

torch = pytest.importorskip("torch")

from roadseg.calib.ranges import feed  # noqa: E402
from roadseg.calib.source import load_float_model  # noqa: E402
from roadseg.calib.teacher import Teacher, Views, tile_shares, tile_starts  # noqa: E402
from roadseg.calib.torchgraph import TorchGraph, logits_of  # noqa: E402
from roadseg.runtime import ModelSpec, UsageError  # noqa: E402
from roadseg.runtime.onnxfile import onnx_spec  # noqa: E402
from roadseg.runtime.pixels import fit  # noqa: E402


def teacher(model, **views):
    network = load_float_model(model)
    return Teacher(TorchGraph(network, [logits_of(network)]), onnx_spec(network, model), 1, Views(**views))


def probabilities(teacher, pixels):
    """Of the model itself, for pixels of its size; `(1, classes, h, w)`."""
    with torch.no_grad():
        (logits,) = teacher.network(torch.from_numpy(feed(pixels, teacher.spec, 1)))
    return logits.softmax(1)


@pytest.fixture
def pointwise(graph, save, tmp_path):
    """Frames of 4x4, each pixel of them answered by itself."""
    model = graph(
        """pointwise (uint8[1,4,4,3] frames) => (uint8[1,4,4] labels) {
            bytes = Cast<to=1>(frames)
            images = Transpose<perm=[0,3,1,2]>(bytes)
            pixels = Mul(images, unit)
            logits = Conv(pixels, w)
            best = ArgMax<axis=1, keepdims=0>(logits)
            labels = Cast<to=2>(best)
        }""",
        unit=np.array(1 / 16, np.float32),
        w=(2, 3, 1, 1),
    )
    return save(tmp_path / "pointwise.onnx", model, ModelSpec("pointwise", 4, 4, classes=("road", "sky")))


def test_one_view_is_answered_as_the_model_answers(small, scenes):
    (frame,) = scenes(8, 8, groups=(1,)).frames
    once = teacher(small)
    assert torch.equal(once.answer(0, frame, mirrored=False).softmax(1), probabilities(once, frame))
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    assert torch.equal(once.answer(0, frame, mirrored=True).softmax(1), probabilities(once, mirrored))


def test_an_enlarged_frame_is_answered_with_the_details_that_the_model_does_not_see_at_once(pointwise, scenes):
    (frame,) = scenes(8, 8, groups=(1,)).frames
    found = teacher(pointwise, scales=(2.0,))
    tiles = [[frame[y : y + 4, x : x + 4].copy() for x in (0, 4)] for y in (0, 4)]
    whole = torch.cat([torch.cat([probabilities(found, tile) for tile in row], 3) for row in tiles], 2)
    # The centre of each pixel of the small frame lies between four of the large one's.
    expected = torch.nn.functional.avg_pool2d(whole, 2)
    assert torch.allclose(found.answer(0, frame, mirrored=False).softmax(1), expected, atol=1e-3)
    assert not torch.allclose(probabilities(found, fit(frame, found.spec)), expected, atol=1e-2)


def test_views_count_alike_and_the_mirrored_one_is_turned_back(small, scenes):
    (frame,) = scenes(8, 8, groups=(1,)).frames
    both = teacher(small, flip=True)
    turned = probabilities(both, np.ascontiguousarray(frame[:, ::-1])).flip(3)
    expected = (probabilities(both, frame) + turned) / 2
    assert torch.allclose(both.answer(0, frame, mirrored=False).softmax(1), expected, atol=1e-3)
    assert not torch.allclose(turned, expected, atol=1e-2)
    scaled = [teacher(small, scales=(s,)).answer(0, frame, mirrored=False).softmax(1) for s in (1.5, 2.0)]
    together = teacher(small, scales=(1.5, 2.0)).answer(0, frame, mirrored=False).softmax(1)
    assert torch.allclose(together, sum(scaled) / 2, atol=1e-3)
    assert not torch.allclose(*scaled, atol=1e-2)


def test_several_views_are_asked_for_once_and_mirrored_with_their_frame(small, scenes, monkeypatch):
    first, second = scenes(8, 8, groups=(2,)).frames
    several, asked = teacher(small, scales=(1.0, 1.5), flip=True), []
    monkeypatch.setattr(
        several.network, "forward", lambda fed, kept=several.network.forward: asked.append(0) or kept(fed)
    )
    answer = several.answer(0, first, mirrored=False)
    assert len(asked) == 2 * (1 + 4)
    assert torch.equal(several.answer(0, first, mirrored=True), answer.flip(3))
    assert torch.equal(several.answer(0, first, mirrored=False), answer)
    assert len(asked) == 10
    assert not torch.equal(several.answer(1, second, mirrored=False), answer)
    assert len(asked) == 20


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("pixels", "cells"), [(64, 8), (65, 9), (60, 60), (90, 12)])
@pytest.mark.parametrize("scale", [1.0, 1.25, 1.5, 2.0, 3.1])
def test_what_tiles_answer_comes_back_to_where_it_was_seen(pixels, cells, align_corners, scale):
    def centres(start=0, zoom=1):
        """Of the cells of a tile, in pixels of the frame as it was before it was enlarged."""
        index = np.arange(cells)
        places = 0.5 + index * (pixels - 1) / (cells - 1) if align_corners else (index + 0.5) * pixels / cells
        return (places + start) / zoom

    whole = round(pixels * scale)
    starts = tile_starts(whole, pixels)
    shares = [share.double().numpy() for share in tile_shares(pixels, cells, whole, starts, align_corners)]
    assert np.allclose(sum(share.sum(1) for share in shares), 1)
    found = sum(s @ centres(start, whole / pixels) for s, start in zip(shares, starts, strict=True))
    # A centre between the border of a tile and the centre of its last cell takes that cell's answer.
    assert np.abs(found - centres()).max() <= 0.5 * pixels / cells / scale + 1e-4
    if scale == 1:
        assert np.allclose(shares[0], np.eye(cells), atol=1e-5)


@pytest.mark.parametrize("scales", [(), (0.5, 1.0), (float("nan"),), (float("inf"),)])
def test_scales_that_the_model_cannot_be_given_are_refused(scales):
    with pytest.raises(UsageError, match=r"scales are numbers from 1, e\.g\. 1,1\.5, got"):
        Views(scales).refuse_senseless()
