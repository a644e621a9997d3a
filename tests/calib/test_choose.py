from collections import Counter

import numpy as np
import pytest

from roadseg.calib.choose import choose, describe, proportional
from roadseg.runtime import CalibrationError, Key, UsageError


def groups_of(dataset, indices):
    return Counter(dataset.keys[i].group for i in indices)


def test_groups_give_images_in_proportion_to_their_size(scenes):
    dataset = scenes(groups=(40, 20, 10))
    assert groups_of(dataset, choose(dataset, 14, seed=0)) == {"0": 8, "1": 4, "2": 2}


def test_a_small_group_gives_one_image_all_the_same(scenes):
    dataset = scenes(groups=(50, 1))
    assert groups_of(dataset, choose(dataset, 5, seed=0)) == {"0": 4, "1": 1}


def test_with_more_groups_than_images_the_seed_chooses_the_groups(scenes):
    dataset = scenes(groups=(1,) * 12)
    chosen = {choose(dataset, 2, seed) for seed in range(8)}
    assert all(len(indices) == 2 for indices in chosen)
    assert len(chosen) > 3


def test_no_image_is_chosen_twice_and_no_more_than_there_are(scenes):
    assert choose(scenes(groups=(3, 2)), 64, seed=0) == (0, 1, 2, 3, 4)


def test_the_choice_follows_the_seed_and_not_the_order_of_listing(scenes):
    dataset = scenes(groups=(20, 20))
    reordered = type(dataset)(dataset.frames[::-1], dataset.keys[::-1])
    names = {dataset.keys[i].name for i in choose(dataset, 8, seed=3)}
    assert names == {reordered.keys[i].name for i in choose(reordered, 8, seed=3)}
    assert names != {dataset.keys[i].name for i in choose(dataset, 8, seed=4)}


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_that_accuracy_is_measured_on_is_refused_unless_forced(scenes, split):
    dataset = scenes(split=split)
    with pytest.raises(CalibrationError, match=f'"{split}" is there to measure accuracy'):
        choose(dataset, 2, seed=0)
    assert len(choose(dataset, 2, seed=0, force=True)) == 2


def test_an_empty_split_and_a_count_of_zero_are_refused(scenes):
    with pytest.raises(CalibrationError, match="holds no images"):
        choose(scenes(groups=()), 2, seed=0)
    with pytest.raises(UsageError, match="at least one image"):
        choose(scenes(), 0, seed=0)


def test_shares_never_exceed_a_group_and_add_up():
    for count in range(1, 20):
        shares = proportional([1, 7, 2], count)
        assert sum(shares) == min(count, 10)
        assert all(share <= size for share, size in zip(shares, [1, 7, 2], strict=True))


def test_an_image_is_known_by_its_pixels_and_their_arrangement():
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    key = Key("a", "b")
    assert describe(key, frame) == describe(key, np.asfortranarray(frame))
    assert describe(key, frame).sha256 != describe(key, frame.reshape(4, 2, 3)).sha256
    assert describe(key, frame).sha256 != describe(key, frame[::-1]).sha256
