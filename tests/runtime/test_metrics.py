"""The confusion matrix counts as others do."""

import math
import sys

import numpy as np
import pytest

from roadseg.runtime import CITYSCAPES, IGNORE, ConfusionMatrix, SpecError
from roadseg.runtime.labels import CITYSCAPES_TRAIN_ID_TO_ID


def maps(seed, classes, absent=(), shape=(3, 60, 80)):
    """Random labels and answers, two thirds of them alike; `absent` classes occur in neither."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels, others = rng.choice(present, (2, *shape)).astype(np.uint8)
    answers = np.where(rng.random(shape) < 2 / 3, labels, others).astype(np.uint8)
    labels[rng.random(shape) < 0.1] = IGNORE
    return labels, answers


def counted(labels, answers, classes):
    matrix = ConfusionMatrix(classes)
    for label, answer in zip(labels, answers, strict=True):
        matrix.update(label, answer)
    return matrix


@pytest.fixture(scope="module")
def cityscapes():
    """The evaluation module of cityscapesScripts, which parses the command line when imported."""
    pytest.importorskip("cityscapesscripts", reason="needs the extra dev")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate"])
        from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
    return evalPixelLevelSemanticLabeling


def evaluate_as_cityscapes(module, folder, labels, answers):
    """IoU per train id and their mean, from PNG files of label ids."""
    from PIL import Image

    ids = np.zeros(256, np.uint8)
    ids[: len(CITYSCAPES_TRAIN_ID_TO_ID)] = CITYSCAPES_TRAIN_ID_TO_ID
    module.args.evalInstLevelScore = False
    matrix = module.generateMatrix(module.args)
    for label, answer in zip(labels, answers, strict=True):
        for name, image in (("label.png", label), ("answer.png", answer)):
            Image.fromarray(ids[image]).save(folder / name)
        paths = str(folder / "answer.png"), str(folder / "label.png")
        module.evaluatePair(*paths, matrix, {}, {}, module.args)
    scores = {i: module.getIouScoreForLabel(i, matrix, module.args) for i in CITYSCAPES_TRAIN_ID_TO_ID}
    return list(scores.values()), module.getScoreAverage(scores, module.args)


@pytest.mark.parametrize("absent", [(), (3, 16, 18)])
def test_iou_is_that_of_cityscapes_scripts(cityscapes, tmp_path, absent):
    labels, answers = maps(0, len(CITYSCAPES.classes), absent)
    answers[0, :5] = IGNORE  # an answer outside the classes is a miss, and no false alarm
    iou, mean = evaluate_as_cityscapes(cityscapes, tmp_path, labels, answers)
    matrix = counted(labels, answers, len(CITYSCAPES.classes))
    np.testing.assert_allclose(matrix.iou, iou, rtol=1e-12)
    assert matrix.miou == pytest.approx(mean, rel=1e-12)
    assert np.flatnonzero(np.isnan(matrix.iou)).tolist() == list(absent)


@pytest.mark.parametrize("absent", [(), (0, 7)])
def test_iou_and_accuracy_are_those_of_torchmetrics(absent):
    torch = pytest.importorskip("torch", reason="needs the extra train")
    functional = pytest.importorskip("torchmetrics.functional.classification", reason="needs the extra dev")
    labels, answers = maps(1, 11, absent)
    given = torch.from_numpy(answers).long(), torch.from_numpy(labels).long()
    settings = {"num_classes": 11, "ignore_index": IGNORE}
    per_class = functional.multiclass_jaccard_index(*given, average=None, **settings).numpy()
    matrix = counted(labels, answers, 11)
    present = ~np.isnan(matrix.iou)
    assert np.flatnonzero(~present).tolist() == list(absent)
    np.testing.assert_allclose(matrix.iou[present], per_class[present], rtol=1e-6)
    mean = functional.multiclass_jaccard_index(*given, average="macro", **settings)
    assert matrix.miou == pytest.approx(float(mean), rel=1e-6)
    accuracy = functional.multiclass_accuracy(*given, average="micro", **settings)
    assert matrix.pixel_accuracy == pytest.approx(float(accuracy), rel=1e-6)


def test_six_pixels_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 0, 1, 1, 255]], np.uint8), np.array([[0, 0, 1, 1, 0, 1]], np.uint8))
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(matrix.iou, [2 / 4, 1 / 3, np.nan])
    assert matrix.miou == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert matrix.pixel_accuracy == pytest.approx(3 / 5)


def test_a_class_answered_but_never_labelled_has_no_hits():
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    assert matrix.iou.tolist() == [3 / 4, 0]
    assert matrix.miou == 3 / 8


@pytest.mark.parametrize("shape", [(0, 0), (2, 2)])
def test_nothing_labelled_is_no_number(shape):
    matrix = ConfusionMatrix(2)
    matrix.update(np.full(shape, IGNORE, np.uint8), np.zeros(shape, np.uint8))
    assert math.isnan(matrix.miou)
    assert math.isnan(matrix.pixel_accuracy)
    assert np.isnan(matrix.iou).all()


def test_frames_add_up():
    labels, answers = maps(2, 5)
    np.testing.assert_array_equal(
        counted(labels, answers, 5).counts, counted(labels[None], answers[None], 5).counts
    )


def test_another_ignore_label_is_left_out():
    matrix = ConfusionMatrix(2, ignore_label=11)
    matrix.update(np.array([[0, 1, 11]], np.uint8), np.array([[0, 1, 0]], np.uint8))
    assert matrix.pixel_accuracy == 1


def test_a_label_outside_the_classes_is_named():
    with pytest.raises(SpecError, match="label 19 is outside the 19 classes and is not the ignore label 255"):
        ConfusionMatrix(19).update(np.array([[19]], np.uint8), np.array([[0]], np.uint8))


def test_maps_of_two_sizes_are_not_compared():
    with pytest.raises(SpecError, match=r"\(2, 3\) cannot be compared with answers of shape \(3, 2\)"):
        ConfusionMatrix(2).update(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))
