import math

import pytest
import torch

from roadseg.train.models.segformer import Attention, DropPath, Embedding


def test_each_position_takes_the_values_that_its_query_fits():
    torch.manual_seed(0)
    attention = Attention(channels=8, heads=2, shrink=1).eval()
    x = torch.randn(1, 2, 3, 8)
    positions = x.reshape(6, 8)
    query, (key, value) = attention.query(positions), attention.key_value(positions).split(8, dim=1)
    gathered = torch.zeros(6, 8)
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(6):
            fits = torch.stack([query[i, head] @ key[j, head] for j in range(6)]) / math.sqrt(4)
            gathered[i, head] = sum(w * v for w, v in zip(fits.softmax(0), value[:, head], strict=True))
    torch.testing.assert_close(attention(x), attention.out(gathered).view_as(x))


def test_attention_to_a_shrunken_map_keeps_the_size():
    assert Attention(channels=8, heads=1, shrink=4)(torch.randn(2, 8, 12, 8)).shape == (2, 8, 12, 8)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 4), (3, 2), (8, 8)])
def test_an_embedding_divides_the_map_by_its_stride(kernel, stride):
    assert Embedding(3, 5, kernel, stride)(torch.randn(1, 3, 16, 32)).shape == (1, 16 // stride, 32 // stride, 5)


def test_a_dropped_branch_is_zero_and_the_others_make_up_for_it():
    torch.manual_seed(0)
    drop, branch = DropPath(0.25), torch.full((4000, 1, 1, 2), 3.0)
    kept = drop(branch)[:, 0, 0]
    assert set(kept.flatten().tolist()) == {0.0, 4.0}
    assert kept.mean() == pytest.approx(3, abs=0.1)
    assert drop.eval()(branch) is branch
