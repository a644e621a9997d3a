import dataclasses
import hashlib
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from roadseg.runtime import CITYSCAPES, IGNORE, Sample, UsageError
from roadseg.train.data import open_data
from roadseg.train.data.scenes import Scenes, scene_video
from roadseg.train.data.scenes.camera import Camera
from roadseg.train.data.scenes.dice import Dice
from roadseg.train.data.scenes.light import choose_air, choose_light
from roadseg.train.data.scenes.painter import LABELS, Painter
from roadseg.train.data.scenes.painting import PAINTERS, painting_order
from roadseg.train.data.scenes.things import Thing, Vehicle

SMALL = (64, 128)
CAMERA = Camera((128, 256), x=0.0, height=1.5, z=0.0, focal=0.8, horizon=0.5, yaw=0.0, bend=0.0)
CAR = Vehicle(
    0.0, 12.0, 1.8, 4.0, 1.5, (200, 30, 30),
    kind="car", glass=(60, 70, 80), trim=(0, 0, 0), oncoming=False, braking=False, shape="low",
)  # fmt: skip
HASH_SCENES = """
import hashlib
from roadseg.train.data.scenes import Scenes
scenes = Scenes("val", size=(64, 128))
print(hashlib.sha256(b"".join(s.frame.tobytes() + s.labels.tobytes() for s in (scenes[3], scenes[8]))).hexdigest())
"""


def digest(samples: list[Sample]) -> str:
    return hashlib.sha256(b"".join(s.frame.tobytes() + s.labels.tobytes() for s in samples)).hexdigest()


def test_a_scene_is_the_same_in_another_order_and_in_another_process():
    scenes = Scenes("val", size=SMALL)
    here = digest([scenes[3], scenes[8]])
    assert digest([scenes[8], scenes[3]][::-1]) == here
    there = subprocess.run([sys.executable, "-c", HASH_SCENES], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_no_two_scenes_of_train_val_and_another_seed_are_the_same():
    sets = (Scenes("train", 6, SMALL), Scenes("val", 6, SMALL), Scenes("train", 6, SMALL, seed=1))
    assert len({digest([sample]) for scenes in sets for sample in scenes}) == 18


def test_a_sample_has_the_size_asked_for_and_known_labels():
    sample = Scenes(size=(48, 80), count=1)[0]
    assert sample.frame.shape == (48, 80, 3)
    assert sample.labels.shape == (48, 80)
    assert sample.frame.dtype == sample.labels.dtype == np.uint8
    assert set(np.unique(sample.labels)) <= {*range(19), IGNORE}


def test_the_scene_does_not_depend_on_the_size():
    small = Scenes("val", size=(64, 128))[0].labels
    large = Scenes("val", size=(128, 256))[0].labels
    assert (large[::2, ::2] == small).mean() > 0.85


def test_each_class_is_in_at_least_ten_of_the_hundred_val_frames():
    frames = np.zeros(256, int)
    for sample in Scenes("val", size=(128, 256)):
        frames += np.bincount(sample.labels.ravel(), minlength=256) > 8
    assert {CITYSCAPES.classes[i]: frames[i] for i in range(19) if frames[i] < 10} == {}


def test_keys_are_known_before_painting_and_fit_the_samples():
    scenes = Scenes(count=5, size=SMALL)
    assert [key.name for key in scenes.keys] == [f"train_{i:06}" for i in range(5)]
    assert [sample.key for sample in scenes] == list(scenes.keys)
    assert len({key.group for key in Scenes("val").keys}) > 10


def test_train_has_2000_scenes_and_val_has_100_and_no_more():
    assert (len(Scenes()), len(Scenes("val"))) == (2000, 100)
    with pytest.raises(IndexError, match="scene 100 of 100"):
        Scenes("val")[100]


def test_a_fingerprint_names_count_size_seed_and_split():
    variants = [Scenes(), Scenes("val"), Scenes(count=9), Scenes(size=SMALL), Scenes(seed=2)]
    assert len({scenes.fingerprint for scenes in variants}) == 5
    assert Scenes(count=2000).fingerprint == Scenes().fingerprint


def test_options_are_read_as_the_command_line_writes_them():
    assert open_data("scenes:count=64,size=256x512,seed=3", "val") == Scenes("val", 64, (256, 512), 3)
    assert open_data("scenes:", "train") == open_data("scenes", "train") == Scenes()
    assert open_data(Scenes("val", 7, SMALL, 5).name, "val") == Scenes("val", 7, SMALL, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames=3", r"scenes have the options count, size and seed.*got 'frames=3'"),
        ("count", "the option count of scenes is a whole number, got ''"),
        ("seed=-1", "the option seed of scenes is a whole number, got '-1'"),
        ("count=0", "a count of 1 or more"),
        ("size=256", "a size is rows x columns"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Scenes.from_options(text, "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="train and val, got 'test'"):
        Scenes("test")


def paint(things: list[Vehicle]) -> np.ndarray:
    dice = Dice(0)
    light = choose_light(dice)
    painter = Painter(CAMERA, light, choose_air(dice, light))
    for i in painting_order(things, CAMERA):
        PAINTERS[type(things[i])](painter, things[i])
    return painter.labels


@pytest.mark.parametrize("turn", [1, -1])
def test_a_nearer_car_hides_a_further_bus(turn):
    bus = dataclasses.replace(CAR, z=24.0, kind="bus", height=1.4, width=1.7)
    labels = paint([CAR, bus][::turn])
    assert (labels == LABELS["car"]).any()
    assert not (labels == LABELS["bus"]).any()


@pytest.mark.parametrize("turn", [1, -1])
def test_a_bus_behind_a_car_stands_out_above_it(turn):
    bus = dataclasses.replace(CAR, z=24.0, kind="bus", height=4.0, width=2.5)
    assert (paint([CAR, bus][::turn]) == LABELS["bus"]).any()
    assert (paint([CAR, bus][::turn]) == LABELS["car"]).sum() == (paint([CAR]) == LABELS["car"]).sum()


@pytest.mark.parametrize("turn", [1, -1])
def test_what_is_beside_a_long_bus_is_painted_over_it(turn):
    bus = Thing(6.0, 20.0, 2.5, 20.0, 3.0, (0, 0, 0))
    cyclist = Thing(3.0, 26.0, 0.6, 1.8, 1.7, (0, 0, 0))
    things = [bus, cyclist][::turn]
    assert [things[i] for i in painting_order(things, CAMERA)] == [bus, cyclist]


def test_a_point_on_the_ground_is_projected_by_hand():
    assert CAMERA.focal_px == pytest.approx(204.8)
    column, row = CAMERA.project(np.array((1.0, 0.0, 10.0)))
    assert column == pytest.approx(128 + 20.48)
    assert row == pytest.approx(64 + 204.8 * 1.5 / 10)


def test_a_drive_is_coherent_and_moves():
    frames = list(scene_video(1, 8, (128, 256)))
    assert [sample.key.name for sample in frames] == [f"drive1_{i:06}" for i in range(8)]
    for before, after in pairwise(frames):
        agreement = (before.labels == after.labels).mean()
        assert 0.85 < agreement < 1


def test_a_drive_is_the_same_twice():
    assert digest(list(scene_video(2, 3, SMALL))) == digest(list(scene_video(2, 3, SMALL)))
