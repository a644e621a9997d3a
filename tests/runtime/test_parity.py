"""How good a model is, and whether a candidate is as good as its reference."""

import dataclasses
import json
import math

import numpy as np
import pytest

from roadseg.runtime import (
    ConfusionMatrix,
    DataError,
    Key,
    LabelSet,
    ModelSpec,
    ParityError,
    Sample,
    Segmenter,
    SpecError,
    compare,
    evaluate,
)
from roadseg.runtime.parity import RESAMPLES, bootstrap_drop, mean_iou

SPEC = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))
THREE = ModelSpec("tiny", height=2, width=5, classes=("road", "sky", "car"))


class Answer:
    """A backend that always gives one class."""

    def __init__(self, label):
        self.name = f"always {label}"
        self.label = label

    def __call__(self, frames):
        n, h, w, _ = frames.shape
        return np.full((n, h, w), self.label, np.uint8)


class Red:
    """A backend that answers what the red channel says."""

    name = "red"

    def __call__(self, frames):
        return frames[..., 0]


class Wrong:
    """A backend that answers like Red but for the first pixels of each frame."""

    def __init__(self, pixels, label=0):
        self.name = f"wrong {pixels}"
        self.pixels = pixels
        self.label = label

    def __call__(self, frames):
        answers = frames[..., 0].copy()
        answers.reshape(len(answers), -1)[:, : self.pixels] = self.label
        return answers


def always(label, spec=SPEC):
    return Segmenter(spec, Answer(label))


def sample(labels, answers=None, name="one"):
    """A frame that Red answers with `answers` (else with `labels` itself)."""
    labels = np.array(labels, np.uint8)
    red = labels if answers is None else np.array(answers, np.uint8)
    return Sample(Key(name, "drive"), np.stack([red] * 3, axis=-1), labels)


def unlabelled(one):
    return dataclasses.replace(one, labels=None)


def road_images(number):
    return [sample(np.zeros((2, 4)), name=str(i)) for i in range(number)]


def random_counts(seed, frames, classes):
    return np.random.default_rng(seed).integers(0, 50, (frames, classes, classes + 1))


def test_a_drop_is_named_with_both_numbers():
    report = compare(always(0), always(1), road_images(1))
    with pytest.raises(
        ParityError,
        match=r"always 1\) has 0.00 % mIoU, 100 points below .*always 0\) with 100.00 %; .* 0.1 points",
    ):
        report.raise_for_parity()


def test_iou_worked_out_by_hand():
    # road: 3 hits of 3 labels and 4 answers; sky: 3 hits of 4 labels and 3 answers; one pixel is unlabelled.
    one = sample([[0, 0, 0, 1], [1, 1, 1, 255]], [[0, 0, 0, 0], [1, 1, 1, 1]])
    measured = evaluate(Segmenter(SPEC, Red()), [one])
    assert measured.iou == (3 / 4, 3 / 4)
    assert measured.miou == 3 / 4
    assert measured.pixel_accuracy == pytest.approx(6 / 7)
    assert (measured.frames, measured.backend, measured.classes) == (1, "red", ("road", "sky"))


def test_frames_are_counted_together_and_not_averaged():
    # 8 road pixels right, then 4 of 8 sky pixels: road 8/12, sky 4/8.
    pair = [sample(np.zeros((2, 4))), sample(np.ones((2, 4)), [[0, 0, 0, 0], [1, 1, 1, 1]])]
    assert evaluate(Segmenter(SPEC, Red()), pair).iou == (8 / 12, 4 / 8)


def test_answering_unlabelled_misses_the_class_that_is_there_and_is_no_class_itself():
    spec = dataclasses.replace(SPEC, classes=("road", "sky", "unlabelled"))
    one = sample([[0, 0, 0, 0], [1, 1, 1, 1]], [[0, 0, 0, 2], [1, 1, 1, 1]])
    measured = evaluate(Segmenter(spec, Red()), [one])
    assert measured.iou[:2] == (3 / 4, 1)
    assert math.isnan(measured.iou[2])
    assert measured.miou == 7 / 8
    assert compare(Segmenter(spec, Red()), always(2, spec), [one]).candidate.miou == 0


def test_an_absent_class_is_null_in_json():
    shown = evaluate(always(0), road_images(2)).as_json()
    assert shown == {
        "miou": 100.0,
        "per_class_iou": {"road": 100.0, "sky": None},
        "pixel_accuracy": 100.0,
        "frames": 2,
        "backend": "always 0",
    }
    json.dumps(shown, allow_nan=False)


def test_a_split_without_a_labelled_pixel_has_no_miou():
    # As the test split of Cityscapes, whose labels are all 255.
    blank = sample(np.full((2, 4), 255), np.zeros((2, 4)))
    assert evaluate(always(0), [blank]).as_json()["miou"] is None
    report = compare(always(0), always(1), [blank])
    assert not report.labelled
    assert report.drop == 1


def test_labels_keep_their_size_while_the_frame_is_resized():
    pytest.importorskip("cv2", reason="needs the extra train")
    labels = np.repeat([[0, 0, 1, 1]], 6, axis=0).repeat(3, axis=1)
    assert evaluate(Segmenter(SPEC, Red()), [sample(labels)]).miou == 1


def test_pixels_without_a_label_are_255_whatever_the_ignore_label_of_the_model():
    spec = dataclasses.replace(SPEC, ignore_label=2)
    assert evaluate(always(0, spec), [sample([[0, 0, 0, 255]] * 2)]).pixel_accuracy == 1


def test_only_labelled_frames_can_be_evaluated_on():
    with pytest.raises(DataError, match="0 has no labels"):
        evaluate(always(0), [unlabelled(road_images(1)[0])])
    with pytest.raises(DataError, match="no frames to evaluate on"):
        evaluate(always(0), [])


def test_labels_of_another_size_are_named():
    with pytest.raises(DataError, match=r"one has labels of \(4, 2\) for a frame of \(2, 4\)"):
        evaluate(always(0), [dataclasses.replace(sample(np.zeros((2, 4))), labels=np.zeros((4, 2), np.uint8))])


def test_a_label_outside_the_classes_is_named():
    with pytest.raises(SpecError, match="label 7 is outside the 2 classes"):
        evaluate(always(0), [sample(np.full((2, 4), 7))])


def test_equal_models_agree_in_everything():
    frames = [sample([[0, 1, 0, 1]] * 2), sample([[0, 0, 0, 255]] * 2, [[0, 0, 1, 1]] * 2)]
    report = compare(Segmenter(SPEC, Red()), Segmenter(SPEC, Red()), frames)
    assert (report.drop, report.pixel_agreement, report.agreement_miou) == (0, 1, 1)
    assert report.ci95 == (0, 0)
    assert report.within(0)
    report.raise_for_parity(0)


def test_agreement_and_histograms_by_hand():
    # Reference: 6 road, 4 sky. Candidate: 2 of the road pixels are cars.
    one = sample([[0, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    report = compare(Segmenter(THREE, Red()), Segmenter(THREE, Wrong(2, label=2)), [one])
    assert report.pixel_agreement == 8 / 10
    assert report.agreement_miou == pytest.approx((4 / 6 + 1 + 0) / 3)
    assert report.reference_histogram == (0.6, 0.4, 0)
    assert report.candidate_histogram == (0.4, 0.4, 0.2)
    assert report.drop == pytest.approx(1 - (4 / 6 + 1 + 0) / 3)


def test_the_frame_on_which_they_agree_least_is_named():
    frames = [
        dataclasses.replace(sample(np.full((2, 4), fill)), key=Key(name, "drive"))
        for name, fill in (("calm", 0), ("wild", 1), ("wilder", 1))
    ]
    report = compare(Segmenter(SPEC, Red()), always(0), frames)
    assert (report.furthest, report.furthest_agreement) == ("wild", 0)
    assert report.as_json(1)["furthest"] == {"frame": "wild", "pixel_agreement": 0}
    plain = compare(Segmenter(SPEC, Red()), always(0), [frame.frame for frame in frames])
    assert plain.furthest == "frame 1"


def test_a_drop_equal_to_the_budget_is_within():
    # Of 1000 pixels, one road is taken for sky: road 499/500, sky 500/501.
    spec = ModelSpec("tiny", height=2, width=500, classes=("road", "sky"))
    one = sample(np.repeat([[0], [1]], 500, axis=1))
    report = compare(Segmenter(spec, Red()), Segmenter(spec, Wrong(1, label=1)), [one])
    drop = 100 * (1 - (499 / 500 + 500 / 501) / 2)
    assert report.drop == pytest.approx(drop / 100)
    assert report.within(drop)
    assert report.within(round(drop, 6))
    assert not report.within(drop - 1e-4)


def test_a_gain_is_within_any_budget():
    report = compare(always(1), always(0), road_images(1))
    assert report.drop == -1
    assert report.within(0)


def test_what_is_not_a_number_is_never_within():
    report = compare(always(0), always(0), road_images(1))
    assert not report.within(math.nan)
    nothing = dataclasses.replace(report.reference, miou=math.nan)
    lost = dataclasses.replace(report, candidate=nothing)
    assert not lost.within(100)
    assert not dataclasses.replace(lost, reference=nothing, agreement_miou=math.nan).within(100)
    with pytest.raises(ParityError):
        lost.raise_for_parity(100)


def test_without_labels_the_verdict_is_about_agreement():
    frames = [unlabelled(sample([[0, 0, 0, 0], [1, 1, 1, 1]])), np.zeros((2, 4, 3), np.uint8)]
    report = compare(Segmenter(SPEC, Red()), Segmenter(SPEC, Wrong(2, label=1)), frames)
    # Reference: 12 road, 4 sky. Candidate: 4 of the road pixels are sky.
    assert report.drop == pytest.approx(1 - (8 / 12 + 4 / 8) / 2)
    assert not report.labelled
    with pytest.raises(ParityError, match=r"agrees with the reference \(red\) to 58.33 % mIoU, 41.7 points short"):
        report.raise_for_parity()
    shown = report.as_json(0.1)
    assert shown["miou_reference"] is None
    assert shown["ci95"] == [None, None]
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize("labelled", [True, False])
def test_an_engine_that_answers_one_class_is_named(labelled):
    frames = [sample([[0, 0, 0, 1, 1], [1, 1, 2, 2, 2]]) for _ in range(3)]
    frames = frames if labelled else [unlabelled(one) for one in frames]
    report = compare(Segmenter(THREE, Red()), Segmenter(THREE, Answer(1)), frames)
    assert report.candidate_histogram == (0, 1, 0)
    with pytest.raises(ParityError, match="It answers 'sky' for every pixel"):
        report.raise_for_parity()


def test_a_one_class_share_is_exactly_one_whatever_the_reference_answers():
    rng = np.random.default_rng(0)
    spec = ModelSpec("tiny", height=7, width=11, classes=tuple("abcdefghij"))
    for _ in range(50):
        frame = np.repeat(rng.integers(0, 10, (7, 11, 1)).astype(np.uint8), 3, axis=2)
        report = compare(Segmenter(spec, Red()), Segmenter(spec, Answer(3)), [frame])
        assert report.candidate_histogram[3] == 1


def test_json_has_percentages_under_the_promised_keys():
    report = compare(Segmenter(SPEC, Red()), Segmenter(SPEC, Wrong(4)), [sample([[1, 1, 1, 1], [0, 0, 0, 0]])])
    shown = report.as_json(60)
    assert shown["miou_reference"] == shown["reference"]["miou"] == 100
    # Everything is taken for road: 4/8, and no sky.
    assert shown["miou_candidate"] == shown["candidate"]["miou"] == 25
    assert shown["miou_drop"] == 75
    assert shown["pixel_agreement"] == 50
    assert shown["ci95"] == [75, 75]
    assert (shown["budget"], shown["within_budget"], report.as_json(75)["within_budget"]) == (60, False, True)
    assert shown["class_histogram_reference"] == {"road": 50, "sky": 50}
    assert shown["class_histogram_candidate"] == {"road": 100, "sky": 0}


@pytest.mark.parametrize("turned", [False, True])
def test_labelled_and_unlabelled_frames_are_not_mixed(turned):
    frames = [road_images(1)[0], unlabelled(road_images(1)[0])]
    with pytest.raises(DataError, match="some frames have labels and some have none"):
        compare(always(0), always(0), frames[::-1] if turned else frames)


def test_no_frames_are_no_comparison():
    with pytest.raises(DataError, match="no frames to compare on"):
        compare(always(0), always(1), [])


@dataclasses.dataclass(frozen=True)
class Listed:
    """Samples as a data set."""

    samples: tuple[Sample, ...]
    label_set: LabelSet
    name: str = "folder:drive"

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_a_data_set_of_other_classes_is_refused_though_its_labels_are_in_range():
    turned = LabelSet("two", ("sky", "road"), ((0, 0, 0), (9, 9, 9)))
    said = r"folder:drive has labels of 2 classes \(sky, road, \.\.\.\), tiny answers with 2 classes \(road, sky"
    with pytest.raises(DataError, match=said):
        evaluate(always(0), Listed(tuple(road_images(1)), turned))
    with pytest.raises(DataError, match=said):
        compare(always(0), always(0), Listed(tuple(road_images(1)), turned))
    without = Listed(tuple(unlabelled(one) for one in road_images(1)), turned)
    assert compare(always(0), always(0), without).drop == 0
    same = dataclasses.replace(turned, classes=SPEC.classes)
    assert evaluate(always(0), Listed(tuple(road_images(1)), same)).miou == 1


def test_models_of_other_classes_or_sizes_are_not_compared():
    other = ModelSpec("tiny", height=2, width=4, classes=("road", "car"))
    with pytest.raises(SpecError, match=r"2 classes \(road, sky, ...\), the candidate 2 \(road, car, ...\)"):
        compare(always(0), always(0, other), road_images(1))
    with pytest.raises(SpecError, match="takes 2x4, the candidate 4x4"):
        compare(always(0), always(0, SPEC.resized((4, 4))), road_images(1))


def test_the_interval_is_that_of_a_slow_loop():
    reference, candidate = random_counts(0, 8, 3), random_counts(1, 8, 3)
    rng = np.random.default_rng(5)
    drops = []
    for draw in rng.multinomial(8, np.full(8, 1 / 8), size=RESAMPLES):
        means = []
        for counts in (reference, candidate):
            matrix = ConfusionMatrix(3)
            for frame, times in enumerate(draw):
                for _ in range(times):
                    matrix.counts += counts[frame]
            means.append(matrix.miou)
        drops.append(means[0] - means[1])
    expected = sorted(drops)[round(0.025 * (RESAMPLES - 1))], sorted(drops)[round(0.975 * (RESAMPLES - 1))]
    found = bootstrap_drop(reference, candidate, seed=5)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(found, np.percentile(drops, (2.5, 97.5)), rtol=1e-9)


def test_the_interval_has_about_the_spread_of_independent_draws():
    # An independent bootstrap, by drawing indices from another generator.
    reference, candidate = random_counts(2, 40, 2), random_counts(3, 40, 2)
    rng = np.random.default_rng(99)
    drops = []
    for _ in range(2000):
        drawn = rng.integers(0, 40, 40)
        sums = [np.sum(counts[drawn], axis=0, keepdims=True) for counts in (reference, candidate)]
        drops.append(float((mean_iou(np.ones((1, 1), int), sums[0]) - mean_iou(np.ones((1, 1), int), sums[1]))[0]))
    low, high = bootstrap_drop(reference, candidate, seed=0)
    np.testing.assert_allclose((low, high), np.percentile(drops, (2.5, 97.5)), atol=0.2 * (high - low))


def test_the_mean_of_a_draw_leaves_absent_classes_out():
    counts = np.zeros((2, 2, 3), np.int64)
    counts[0, 0] = [3, 1, 0]
    means = mean_iou(np.array([[1, 0], [0, 1]]), counts)
    # road 3/4, sky 0/1; then nothing at all.
    np.testing.assert_allclose(means, [(3 / 4 + 0) / 2, np.nan])


def test_the_seed_decides_the_interval():
    counts = random_counts(4, 6, 3), random_counts(5, 6, 3)
    assert bootstrap_drop(*counts, seed=1) == bootstrap_drop(*counts, seed=1)
    assert bootstrap_drop(*counts, seed=1) != bootstrap_drop(*counts, seed=2)
