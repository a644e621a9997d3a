import pytest
import torch
import torch.nn.functional as F

from roadseg.train.models import attention
from roadseg.train.models.attention import (
    ResidualAttention,
    attention_in_cells,
    channel_attention,
    criss_cross_attention,
    position_attention,
)


def random_maps(height=5, width=7, batch=2, embedded=4, channels=6):
    generator = torch.Generator().manual_seed(0)
    sizes = (embedded, embedded, channels)
    return [torch.randn(batch, size, height, width, generator=generator) for size in sizes]


def test_criss_cross_attention_gathers_from_column_and_row_with_the_position_itself_once():
    query, key, value = random_maps()
    expected = torch.empty_like(value)
    for n in range(2):
        for i in range(5):
            for j in range(7):
                path = [(r, j) for r in range(5) if r != i] + [(i, c) for c in range(7)]
                energies = torch.stack([query[n, :, i, j] @ key[n, :, r, c] for r, c in path])
                values = torch.stack([value[n, :, r, c] for r, c in path])
                expected[n, :, i, j] = energies.softmax(0) @ values
    torch.testing.assert_close(criss_cross_attention(query, key, value), expected)


def test_criss_cross_attention_counts_the_position_once_however_large_its_energy():
    query = key = torch.full((1, 1, 2, 1), 1000.0)
    value = torch.tensor([[[[1.0], [3.0]]]])
    assert criss_cross_attention(query, key, value).flatten().tolist() == [2.0, 2.0]


@pytest.mark.parametrize("tile", [1, 4, 35, 4096])
def test_position_attention_is_the_same_in_tiles_of_any_size(monkeypatch, tile):
    monkeypatch.setattr(attention, "TILE", tile)
    query, key, value = random_maps()
    q, k, v = (x.flatten(2).transpose(1, 2) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).reshape(value.shape)
    torch.testing.assert_close(position_attention(query, key, value, 0.5), expected)


def test_attention_in_cells_hears_of_its_own_cell_alone_and_the_last_cells_are_the_largest():
    query, key, value = random_maps(height=5, width=7)
    gathered = attention_in_cells(query, key, value, grid=3)
    cells = [(..., slice(0, 1), slice(2, 4)), (..., slice(2, 5), slice(4, 7))]
    for cell in cells:
        expected = position_attention(query[cell], key[cell], value[cell])
        torch.testing.assert_close(gathered[cell], expected)


def test_channel_attention_takes_most_from_what_resembles_it_least():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]).reshape(1, 3, 1, 2)
    # The first channel's products with the three are 1, 0 and 3: its weights are softmax(2, 3, 0).
    weights = torch.tensor([2.0, 3.0, 0.0]).softmax(0)
    expected = [weights[0] + 3 * weights[2], 2 * weights[1]]
    assert channel_attention(x)[0, 0].flatten().tolist() == pytest.approx([float(y) for y in expected])


def test_residual_attention_starts_as_the_identity():
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(ResidualAttention(16, position_attention)(x), x)
