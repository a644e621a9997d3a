import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from roadseg.runtime import UsageError
from roadseg.train import Augmentation, Group, Recipe
from roadseg.train.optimizer import make_optimizer, rate_schedule

RECIPE = Recipe(Augmentation((8, 8)), rate=0.1, weight_decay=0.01, warmup=0.0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def settings_by_name(net, recipe):
    """Rate and weight decay of every parameter; each must be in one group only."""
    names = {parameter: name for name, parameter in net.named_parameters()}
    found = [
        (names[parameter], (group["lr"], group["weight_decay"]))
        for group in make_optimizer(net, recipe).param_groups
        for parameter in group["params"]
    ]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


def test_biases_and_batch_norms_are_not_decayed_unless_all_are():
    settings = settings_by_name(Net(), RECIPE)
    assert {name for name, (_, decay) in settings.items() if decay} == {"backbone.0.weight", "head.weight"}
    everything = settings_by_name(Net(), dataclasses.replace(RECIPE, decayed="all"))
    assert set(everything.values()) == {(0.1, 0.01)}


def test_a_parameter_follows_the_first_group_that_fits():
    groups = (Group("backbone.0", 0.5), Group("backbone", 0.25, 0.1), Group("", 10.0))
    assert settings_by_name(Net(), dataclasses.replace(RECIPE, groups=groups, decayed="all")) == {
        "backbone.0.weight": (0.05, 0.01),
        "backbone.0.bias": (0.05, 0.01),
        "backbone.1.weight": (0.025, 0.001),
        "backbone.1.bias": (0.025, 0.001),
        "head.weight": (1.0, 0.01),
        "head.bias": (1.0, 0.01),
    }


def test_a_group_that_fits_nothing_is_refused():
    with pytest.raises(UsageError, match=r"no parameter .* starts with 'neck'"):
        make_optimizer(Net(), dataclasses.replace(RECIPE, groups=(Group("neck", 10.0),)))


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_recipe_names_the_optimizer(name, kind):
    assert type(make_optimizer(Net(), dataclasses.replace(RECIPE, optimizer=name))) is kind


def rates(steps, **changes):
    factor = rate_schedule(dataclasses.replace(RECIPE, **changes), steps)
    return [factor(step) for step in range(steps + 1)]


def test_the_rate_rises_linearly_and_falls_to_zero():
    factors = rates(100, warmup=0.1, power=1.0)
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0
    assert np.all(np.diff(factors[10:]) < 0)


def test_an_exponential_rise_multiplies_by_the_same_factor_in_every_step():
    factors = rates(100, warmup=0.2, warmup_shape="exponential", warmup_start=0.01)
    assert factors[0] == pytest.approx(0.01)
    assert factors[10] == pytest.approx(0.1)
    assert factors[20] == 1


def test_a_cosine_ends_at_its_floor():
    factors = rates(201, schedule="cosine", floor=0.1)  # the first step is the warm-up's
    assert factors[1] == 1
    assert factors[101] == pytest.approx(0.55)
    assert factors[51] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factors[201] == pytest.approx(0.1)


def test_steps_drop_the_rate_after_each_share():
    factors = rates(301, schedule="step", drop=0.5, drop_every=1 / 3)
    assert [factors[step] for step in (1, 100, 101, 200, 201, 300)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
