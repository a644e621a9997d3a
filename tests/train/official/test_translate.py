import pytest
import torch
from torch import nn

from roadseg.runtime import CheckpointError, UsageError
from roadseg.train.models import build
from roadseg.train.official import Preprocessing, Source, import_checkpoint, translate


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2))


def theirs(**extra):
    return {
        "stem.weight": torch.ones(2, 3, 1, 1),
        "norm.weight": torch.tensor([-2.0, 3.0]),
        "norm.bias": torch.zeros(2),
        "norm.running_mean": torch.zeros(2),
        "norm.running_var": torch.ones(2),
        **extra,
    }


SOURCE = Source("owner/name@1", "fastscnn", rename=((r"^stem\.", "0."), (r"^norm\.", "1.")))


def test_every_key_is_accounted_for(net):
    source = Source(SOURCE.repository, SOURCE.net, rename=SOURCE.rename, drop={"aux": "for training only"})
    result = translate(theirs(**{"aux.weight": torch.ones(1), "surprise": torch.ones(1)}), source, net)
    assert result.mapped["norm.running_var"] == "1.running_var"
    assert result.dropped == {"aux.weight": "for training only"}
    assert list(result.filled) == ["1.num_batches_tracked"]
    assert (result.missing, result.unexpected, result.problems) == ((), ("surprise",), 1)


def test_a_key_that_nothing_is_found_for_is_missing_and_a_shape_that_differs_is_told(net):
    weights = theirs(**{"stem.weight": torch.ones(2, 3, 3, 3)})
    del weights["norm.bias"]
    result = translate(weights, SOURCE, net)
    assert result.missing == ("1.bias",)
    assert result.misshapen == ("0.weight (2, 3, 3, 3) in place of (2, 3, 1, 1)",)


def test_inplace_abn_reads_the_absolute_weight(net):
    source = Source(SOURCE.repository, SOURCE.net, rename=SOURCE.rename, absolute=r"1\.weight")
    assert translate(theirs(), source, net).weights["1.weight"].tolist() == pytest.approx([2.00001, 3.00001])


def test_preprocessing_of_bytes_is_brought_to_images_in_0_to_1():
    preprocessing = Preprocessing.of_bytes("bgr", (51.0, 102.0, 153.0))
    assert preprocessing.mean == pytest.approx((0.2, 0.4, 0.6))
    assert preprocessing.std == pytest.approx((1 / 255, 1 / 255, 1 / 255))


def test_a_checkpoint_of_another_network_is_refused_with_the_keys_that_differ(tmp_path):
    torch.save(build("bisenet_r18", 19).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth is not a checkpoint of fastscnn .* missing, e.g. "):
        import_checkpoint("fastscnn", tmp_path / "other.pth")


@pytest.mark.parametrize(("name", "repository"), [("no_such", ""), ("fastscnn", "nobody/nothing")])
def test_an_unknown_network_or_repository_is_a_usage_error_that_lists_the_known(tmp_path, name, repository):
    with pytest.raises(UsageError, match="known"):
        import_checkpoint(name, tmp_path / "any.pth", repository=repository)
