"""What every network of the zoo does; only what is peculiar to a network is tested elsewhere."""

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import onnxscript._framework_apis.torch_2_5
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from roadseg import engines, export
from roadseg.export.ops import flop_formulas
from roadseg.runtime import ModelSpec
from roadseg.runtime.backends.torch import Normalise
from roadseg.train import MODELS, RECIPES, open_data
from roadseg.train.models import build, randomise

SMALL, SMALLER = (64, 128), (48, 96)
"""Of the frames here, and of those for steps; a network that does not take it gets the nearest that it takes."""
LIGHT = 32e6
"""Parameters below which more steps cost little; some need them, with batch norms that see two values each."""
NETWORKS = [*MODELS, *(f"{key}@{variant}" for key, made in MODELS.items() for variant in made.variants)]
OWN_CODE = [*MODELS, "dfanet@huaifeng"]
"""The other variants are the same but for an argument."""


class Card(NamedTuple):
    """Parameters in 1e6 as they are printed, to the last digit; multiply-adds in 1e9."""

    params: str
    gmac: float
    aux: str = ""
    """Of the auxiliary heads; empty where there are none or they were not counted apart."""
    whole: bool = False
    """Whether `params` counts the auxiliary heads too."""
    size: tuple[int, int] = (1024, 2048)
    """Rows and columns at which `gmac` was counted."""
    classes: int = 19
    runs_aux: bool = False
    """Whether `gmac` counts the auxiliary heads too, as the authors' code runs them in evaluation."""


CARDS = {
    "pspnet_r50": Card("49.1", 1489, "2.36", True, (1025, 2049)),
    "pspnet_r101": Card("68.1", 2117, "2.36", True, (1025, 2049)),
    "pspnet_r101@lxtgh": Card("70.4", 2117, "4.73", True),
    "deeplabv3plus_r50": Card("40.5", 1517),
    "deeplabv3plus_r101": Card("59.5", 2138),
    "danet_r50": Card("47.5", 2218, "", True),
    "danet_r101": Card("66.5", 2838, "", True),
    "glore_r50": Card("38.2", 1189, "4.73", True),
    "glore_r101": Card("57.2", 1817, "4.73", True),
    "emanet_r101": Card("53.8", 1847),
    "galdnet_r50": Card("52.4", 1649, "4.73", True),
    "galdnet_r101": Card("71.4", 2277, "4.73", True),
    "gffnet_wr38": Card("141.1", 6470),
    "dgcnet_r50": Card("53.5", 1677, "4.73", True),
    "dgcnet_r101": Card("72.5", 2304, "4.73", True),
    "refinenet_r101": Card("118.1", 2103, classes=21),
    # Written 69.8: with an auxiliary head of 4.73 that the authors' symbol does not have.
    "duc_hdc_r101": Card("65.0", 2209),
    "aaf_r101": Card("68.1", 2117, "2.36", True, (1025, 2049)),
    "bisenet_r18": Card("13.5", 104, "", True),
    "bisenet_r101": Card("48.2", 436, "", True),
    "bisenet_x39": Card("1.84", 28, "", True),
    "psanet_r101": Card("76.7", 2349, "2.36", True, (1025, 2049)),
    "dfn_r101": Card("90.2", 2218, "", True, runs_aux=True),
    "denseaspp121": Card("8.3", 309),
    "denseaspp161": Card("35.4", 1240),
    "ocnet_base_r101": Card("57.7", 2559, "4.73", True, runs_aux=True),
    "ocnet_asp_r101": Card("62.5", 2173, "4.73", True, runs_aux=True),
    "ccnet_r101": Card("71.3", 2467, "4.73", True, runs_aux=True),
    "fastscnn": Card("1.138", 6.71, ".019"),
    "fastscnn@fast_seg": Card("1.138", 6.71, ".038"),
    "bisenetv2": Card("3.359", 98.4),
    "icnet": Card("47.49", 129.1, "", True),
    "dfanet": Card("1.831", 7.34),
    # Written 2.176, the difference of rounded figures: 2,187,728 with 12,416 of a layer that is never called.
    "dfanet@huaifeng": Card("2.175", 15.2, classes=20),
    "swiftnet_r18": Card("11.80", 103.6),
    # Counted on davidtvs/PyTorch-ENet's models/enet.py. The authors' own, in Lua, has .364 and 15.72.
    "enet": Card(".352", 16.23, classes=20),
    "espnet": Card(".365", 18.84, classes=20),
    "espnet@train": Card(".365", 19.12, classes=20),
    "dfseg1": Card("9.22", 36.0),
    # Written 18.68, the difference of rounded figures: 19,187,739 with 513,000 of ImageNet's classifier.
    "dfseg2": Card("18.67", 92.3),
    "ddrnet23_slim": Card("5.70", 36.3),
    "ddrnet23": Card("20.15", 143.1),
    "pidnet_s": Card("7.63", 47.2),
    "stdc1": Card("8.28", 67.5),
    "stdc2": Card("12.31", 93.8),
    "pp_liteseg_t": Card("8.03", 45.7),
    "sfnet_r18": Card("12.87", 243.0),
    "sfnet_lite_r18": Card("12.08", 178.0),
    "segformer_b0": Card("3.719", 121.0),
}
"""Networks without public code, and those that nobody counted, are not here."""


every_network = pytest.mark.parametrize("name", NETWORKS)


def small_size(name, wanted=SMALL):
    return MODELS[name.partition("@")[0]].sizes.nearest(wanted)


@functools.cache
def road_scenes():
    """Two frames with their labels."""
    return [open_data("scenes:count=2", "train")[i] for i in range(2)]


def small_spec(name, net, wanted=SMALL):
    return ModelSpec(name, *small_size(name, wanted), align_corners=net.align_corners)


def small_frames(spec):
    from roadseg.runtime.pixels import fit

    return [fit(sample.frame, spec) for sample in road_scenes()]


def small_batch(spec):
    """Normalised images `(2, 3, h, w)` and labels `(2, h, w)`."""
    images = Normalise(spec)(torch.stack([torch.from_numpy(frame) for frame in small_frames(spec)]))
    labels = torch.stack([torch.from_numpy(sample.labels) for sample in road_scenes()])
    return images, F.interpolate(labels[:, None].float(), spec.size, mode="nearest")[:, 0].long()


@pytest.mark.parametrize("name", [name for name in CARDS if name.partition("@")[0] in MODELS])
def test_parameters_equal_the_card_and_the_cost_is_within_a_percent(name):
    card = CARDS[name]
    with torch.device("meta"):
        net, with_aux = build(name, card.classes).eval(), build(name, card.classes, aux=True)
        counted = with_aux if card.runs_aux else net
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter, torch.no_grad():
            counted(torch.empty(2, 3, *card.size))  # `with_aux` is in training, and batch norm wants two images
    deployed, whole = (sum(p.numel() for p in n.parameters()) for n in (net, with_aux))
    assert in_millions(whole if card.whole else deployed, card.params) == card.params
    assert not card.aux or in_millions(whole - deployed, card.aux) == card.aux
    assert counter.get_total_flops() / 4e9 == pytest.approx(card.gmac, rel=0.01)


def in_millions(parameters, like):
    """The count written with as many digits behind the point as `like` has."""
    text = f"{parameters / 1e6:.{len(like.partition('.')[2])}f}"
    return text.removeprefix("0") if like.startswith(".") else text


@every_network
def test_a_few_steps_lower_the_loss_and_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    net = build(name, 19, aux=True).train()
    images, labels = small_batch(small_spec(name, net, SMALLER))
    optimizer = torch.optim.SGD(net.parameters(), lr=5e-5)

    def loss():
        torch.manual_seed(1)  # the same dropout every time
        outputs = net(images)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return RECIPES[name.partition("@")[0]].loss(outputs, labels, None, net.align_corners)

    losses = []
    for _ in range(6 if sum(p.numel() for p in net.parameters()) < LIGHT else 2):
        optimizer.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        assert [key for key, p in net.named_parameters() if p.grad is None] == []
        for parameter in net.parameters():
            parameter.grad.sign_()  # gradients of random networks differ by a factor of 1e10
        optimizer.step()
    with torch.no_grad():
        assert loss() < losses[0]


@pytest.fixture(scope="module")
def functions_read_once():
    """torch's exporter reads onnxscript's table of functions anew, a second, at every export."""
    table = onnxscript._framework_apis.torch_2_5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "get_torchlib_ops", functools.cache(table.get_torchlib_ops))
        yield


@pytest.mark.usefixtures("functions_read_once")
@pytest.mark.parametrize("name", OWN_CODE)
def test_the_exported_model_answers_as_the_network_and_builds(name, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    net = build(name, 19)
    spec = small_spec(name, net)
    randomise(net, small_batch(spec)[0])
    report = export.export(net, spec, tmp_path / "m.onnx", frames=small_frames(spec))  # raises if they differ
    assert report.messages == ()
    engines.build(tmp_path / "m.onnx", tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    shutil.rmtree(tmp_path)  # pytest would keep half a gigabyte of each network


def test_a_fresh_process_makes_the_same_networks():
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "import json, test_contract\nprint(json.dumps(test_contract.fingerprints()))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        here = fingerprints()
        printed, _ = process.communicate()
    fresh = json.loads(printed.splitlines()[-1])
    for name, (weights, logits) in here.items():
        assert weights == fresh[name][0], name
        assert logits == pytest.approx(fresh[name][1], rel=1e-4, abs=1e-4), name


def fingerprints():
    """By network: SHA-256 of its weights, and some of what it answers to an image."""
    return {name: fingerprint(name) for name in NETWORKS}


def fingerprint(name):
    torch.manual_seed(0)
    net = build(name, 19).eval()
    weights = hashlib.sha256()
    for tensor in net.state_dict().values():
        weights.update(tensor.numpy().data)
    torch.manual_seed(1)
    with torch.no_grad():
        logits = net(torch.randn(1, 3, *small_size(name, SMALLER)))
    return weights.hexdigest(), logits.flatten()[:: logits.numel() // 8].tolist()
