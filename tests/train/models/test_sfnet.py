import pytest
import torch

from roadseg.train.models.sfnet import SFNet, warp

ROWS, COLUMNS = 5, 9


@pytest.fixture
def picture():
    return torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(1, 1, ROWS, COLUMNS)


def flow(right=0.0, down=0.0):
    """Everywhere the same, in columns and rows of the picture."""
    x, y = 2 * COLUMNS / (COLUMNS - 1) * right, 2 * ROWS / (ROWS - 1) * down
    return torch.tensor([x, y])[None, :, None, None].expand(1, 2, ROWS, COLUMNS)


def test_without_flow_a_map_stays_as_it_is(picture):
    torch.testing.assert_close(warp(picture, flow()), picture)


def test_without_flow_a_small_map_is_resized_by_its_corners():
    corners = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    middle = warp(corners, torch.zeros(1, 2, 3, 3))
    assert middle.flatten().tolist() == pytest.approx([0, 2, 4, 4, 6, 8, 8, 10, 12])


def test_flow_says_where_to_look_and_there_is_zero_beyond_the_border(picture):
    right = warp(picture, flow(right=1))
    torch.testing.assert_close(right[..., :-1], picture[..., 1:])
    assert right[..., -1].abs().max() < 1e-4
    half_down = warp(picture, flow(down=0.5))
    torch.testing.assert_close(half_down[..., :-1, :], (picture[..., :-1, :] + picture[..., 1:, :]) / 2)


def test_positions_are_exact_for_a_map_in_half_precision():
    x = torch.randn(1, 3, 64, 512).half()
    still = torch.zeros(1, 2, 64, 512).half()
    torch.testing.assert_close(warp(x, still), x, rtol=0, atol=2e-3)


def test_training_adds_logits_of_every_level():
    outputs = SFNet(classes=4).train()(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in outputs] == [(2, 4, 16, 24), (2, 4, 16, 24), (2, 4, 8, 12), (2, 4, 4, 6)]
