import dataclasses

import msgspec
import pytest
import torch

from roadseg.runtime import UsageError
from roadseg.train import MODELS, RECIPES, Recipe, recipe_for
from roadseg.train.models import build
from roadseg.train.optimizer import make_optimizer, rate_schedule
from roadseg.train.recipes.base import epochs

ACCURATE = """
deeplabv3_r101 deeplabv3plus_r50 deeplabv3plus_r101 pspnet_r50 pspnet_r101 danet_r50 danet_r101 glore_r50
glore_r101 emanet_r101 galdnet_r50 galdnet_r101 gffnet_r101 gffnet_wr38 dgcnet_r50 dgcnet_r101 refinenet_r101
sac_r101 duc_hdc_r101 aaf_r101 bisenet_r18 bisenet_r101 bisenet_x39 psanet_r101 dfn_r101 dsspn_r101
denseaspp121 denseaspp161 ocnet_base_r101 ocnet_pyramid_r101 ocnet_asp_r101 ccnet_r101
"""
FAST = """
fastscnn bisenetv2 icnet dfanet swiftnet_r18 enet espnet dfseg1 dfseg2 msfnet ddrnet23_slim ddrnet23 pidnet_s
stdc1 stdc2 pp_liteseg_t sfnet_r18 sfnet_lite_r18 segformer_b0
"""


def test_every_network_has_a_recipe():
    assert set(RECIPES) == {*ACCURATE.split(), *FAST.split()}
    assert set(MODELS) <= set(RECIPES)


@pytest.mark.parametrize("name", MODELS)
def test_the_optimizer_holds_every_parameter_once(name):
    with torch.device("meta"):
        net = build(name, 19, aux=True)
    groups = make_optimizer(net, RECIPES[name]).param_groups
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len({*held})
    assert {*held} == {*net.parameters()}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_a_file(name):
    recipe = RECIPES[name]
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_rate_rises_to_one_and_never_again(name):
    factors = [rate_schedule(RECIPES[name], 300)(step) for step in range(300)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert 0 < factors[-1] < 0.3


@pytest.mark.parametrize("name", MODELS)
def test_a_crop_is_of_a_size_that_the_network_takes(name):
    crop = RECIPES[name].augmentation.crop
    assert MODELS[name].sizes.nearest(crop) == crop


def test_iterations_become_epochs_of_cityscapes():
    assert epochs(60_000, 48) == 968  # 60000 * 48 / 2975 = 968.07


def test_a_file_changes_what_it_says(tmp_path):
    file = tmp_path / "changes.toml"
    file.write_text(
        'batch = 4\n[loss]\nkind = "ce"\naux_weight = [0.1, 0.2]\n[[groups]]\nprefix = "cp"\nrate = 2\n'
    )
    recipe = recipe_for("stdc1", file, epochs=7)
    assert (recipe.batch, recipe.epochs, recipe.rate) == (4, 7, RECIPES["stdc1"].rate)
    assert recipe.loss == dataclasses.replace(RECIPES["stdc1"].loss, kind="ce", aux_weight=(0.1, 0.2))
    assert [(group.prefix, group.rate) for group in recipe.groups] == [("cp", 2.0)]


def test_a_variant_has_the_recipe_of_its_network():
    assert recipe_for("pspnet_r101@lxtgh") == RECIPES["pspnet_r101"]
    with pytest.raises(UsageError, match="there is no recipe for 'nonsense'; known are deeplabv3_r101"):
        recipe_for("nonsense")
