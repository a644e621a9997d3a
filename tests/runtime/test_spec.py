"""The contract for pixels."""

import colorsys
import dataclasses
import json

import numpy as np
import pytest

from roadseg.runtime import CAMVID, CITYSCAPES, ModelSpec, SpecError, UsageError, parse_size
from roadseg.runtime.spec import spread_hues

SPEC = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))


def test_json_keeps_every_field():
    spec = ModelSpec(
        "package.module:factory",
        height=360,
        width=480,
        classes=("road", "sky"),
        palette=((1, 2, 3), (4, 5, 6)),
        channels="bgr",
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 0.5, 0.25),
        resize="letterbox",
        align_corners=False,
        ignore_label=11,
        io="tensor",
    )
    assert ModelSpec.from_json(spec.to_json()) == spec
    defaults = dataclasses.asdict(ModelSpec("package.module:factory", 1, 1))
    assert not [key for key, value in dataclasses.asdict(spec).items() if key != "name" and value == defaults[key]]


def test_json_is_one_line_in_the_order_of_the_fields():
    text = SPEC.to_json()
    assert "\n" not in text
    assert list(json.loads(text)) == [field.name for field in dataclasses.fields(ModelSpec)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a ModelSpec"),
        ('{"name": "tiny", "height": 2}', "missing required field `width`"),
        ('{"name": "tiny", "height": "2", "width": 4}', r"Expected `int`, got `str` - at `\$.height`"),
        ('{"name": "tiny", "height": 2, "width": 4, "channels": "yuv"}', r"Invalid enum value 'yuv'"),
        (
            '{"name": "tiny", "height": 2, "width": 4, "mean": [0, 0]}',
            r"Expected `array` of length 3.* - at `\$.mean`",
        ),
        ('{"name": "tiny", "height": 0, "width": 4}', "height and width must be positive, got 0x4"),
        (b"\xff", "not a ModelSpec"),
    ],
)
def test_what_is_wrong_in_json_is_named(text, sentence):
    with pytest.raises(SpecError, match=sentence):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": -1}, "height and width must be positive, got 2x-1"),
        ({"classes": ()}, "1 to 255 classes, got 0"),
        ({"classes": tuple(map(str, range(256)))}, "1 to 255 classes, got 256"),
        ({"classes": ("road", "road")}, "every class needs a name of its own, got road, road"),
        ({"palette": ((0, 0, 0),)}, "1 colours for 2 classes"),
        ({"palette": ((0, 0, 0), (0, 0, 256))}, "RGB from 0 to 255"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"std": (1.0, float("nan"), 1.0)}, "std must be positive"),
        ({"ignore_label": 1}, "ignore_label must lie between the 2 classes and 255, got 1"),
        ({"ignore_label": 256}, "ignore_label must lie between the 2 classes and 255, got 256"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(changes, sentence):
    with pytest.raises(SpecError, match=sentence):
        dataclasses.replace(SPEC, **changes)


def test_known_classes_bring_their_colours():
    assert ModelSpec("net", 2, 4).label_set is CITYSCAPES
    assert ModelSpec("net", 2, 4, classes=CAMVID.classes).label_set is CAMVID
    assert ModelSpec("net", 2, 4, classes=CAMVID.classes, palette=CAMVID.palette).label_set is CAMVID


def test_unlabelled_behind_known_classes_changes_no_colour():
    spec = ModelSpec("net", 2, 4, classes=(*CITYSCAPES.classes, "unlabelled"))
    assert spec.evaluated == CITYSCAPES.classes
    assert spec.label_set is CITYSCAPES


def test_own_classes_get_own_colours():
    assert dataclasses.replace(SPEC, palette=((1, 2, 3), (4, 5, 6))).label_set.palette == ((1, 2, 3), (4, 5, 6))
    assert SPEC.label_set.classes == ("road", "sky")
    assert len(set(SPEC.label_set.palette)) == 2


def test_hues_are_distinct_and_evenly_spread():
    hues = [colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0] for colour in spread_hues(12)]
    np.testing.assert_allclose(hues, np.arange(12) / 12, atol=0.01)


def test_another_size_changes_nothing_else():
    resized = SPEC.resized((360, 480))
    assert resized.size == (360, 480)
    assert resized.resized(SPEC.size) == SPEC


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 4, 3), np.uint8),
        np.zeros((1, 4, 2, 3), np.uint8),
        np.zeros((1, 3, 2, 4), np.uint8),
        np.zeros((1, 2, 4, 4), np.uint8),
        np.zeros((1, 2, 4, 3), np.float32),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(frames):
    with pytest.raises(SpecError, match=r"tiny takes frames of shape \(N, 2, 4, 3\) and type uint8 .*, got \("):
        SPEC.check_frames(frames)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_any_number_of_frames_is_taken(number):
    SPEC.check_frames(np.zeros((number, 2, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "text", ["", "360", "360x", "x480", "0x480", "-1x2", "360X480", "360 x 480", "3.5x4", "1x2x3"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"a size is rows x columns, e\.g\. 360x480, got"):
        parse_size(text)


def test_rows_come_first():
    assert parse_size("1024x2048") == (1024, 2048)
