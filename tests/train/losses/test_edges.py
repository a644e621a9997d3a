import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from roadseg.train.losses import border_loss, boundary_loss, detail_loss, detail_targets, edge_targets


def blocks(seed, size=(24, 32)):
    """Labels `(2, H, W)` of some rectangles, the last of them unlabelled."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((2, *size), np.int64)
    for frame in labels:
        for label in (1, 2, 5, 255):
            top, left = rng.integers(0, 16, 2)
            frame[top : top + rng.integers(1, 10), left : left + rng.integers(1, 12)] = label
    return torch.from_numpy(labels)


def met_classes(labels):
    """Pixel by pixel: whether a labelled neighbour above, below, left or right has another class."""
    edges = np.zeros(labels.shape, np.uint8)
    rows, columns = labels.shape
    for y in range(rows):
        for x in range(columns):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < rows and 0 <= u < columns and 255 not in (labels[y, x], labels[v, u]):
                    edges[y, x] |= labels[y, x] != labels[v, u]
    return edges


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_edges_are_where_classes_meet_grown_by_a_square(radius):
    labels = blocks(radius)
    targets = edge_targets(labels, radius)
    assert targets.shape == (2, 1, 24, 32)
    side = 2 * radius - 1
    for frame, target in zip(labels, targets, strict=True):
        expected = cv2.dilate(met_classes(frame.numpy()), np.ones((side, side), np.uint8))
        assert (target[0].numpy() == expected).all()


def test_a_straight_band_is_twice_the_radius_wide():
    labels = torch.zeros(1, 5, 12, dtype=torch.long)
    labels[..., 6:] = 1
    assert edge_targets(labels, 2)[0, 0].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]] * 5


def test_a_mirrored_frame_has_mirrored_edges():
    labels = blocks(7)
    assert (edge_targets(labels.flip(2), 3) == edge_targets(labels, 3).flip(3)).all()


def test_detail_is_the_laplacian_at_three_strides():
    labels = blocks(4)
    kernel = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)
    for frame, target in zip(labels, detail_targets(labels), strict=True):
        laplacian = cv2.filter2D(frame.numpy().astype(np.float32), -1, kernel, borderType=cv2.BORDER_CONSTANT)
        # 0.6 and 0.3 exceed the threshold of 0.1 alone, 0.1 does not.
        half = np.kron(laplacian[::2, ::2] > 0.1, np.ones((2, 2), bool))
        assert (target[0].numpy() == ((laplacian > 0.1) | half)).all()


def test_the_detail_loss_is_cross_entropy_and_dice_over_labelled_pixels():
    labels = blocks(5)
    logits = torch.randn(2, 1, 24, 32, generator=torch.Generator().manual_seed(0))
    entropy, dice, pixels = 0.0, 0.0, 0
    for frame in range(2):
        counted = labels[frame] != 255
        x, t = logits[frame, 0][counted], detail_targets(labels)[frame, 0][counted]
        entropy += F.binary_cross_entropy(x.sigmoid(), t, reduction="sum").item()
        pixels += len(x)
        dice += (1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)).item() / 2
    assert detail_loss(logits, labels) == pytest.approx(entropy / pixels + dice, rel=1e-5)


def test_pixels_on_and_off_boundaries_weigh_the_same_together():
    labels = torch.zeros(1, 4, 16, dtype=torch.long)
    labels[..., 8:] = 1
    logits = torch.zeros(1, 1, 4, 16)  # every pixel's cross-entropy is ln 2
    on, off = 4 * 4, 4 * 12
    by_hand = (on * off / 64 + off * on / 64) * np.log(2) / 64
    assert boundary_loss(logits, labels) == pytest.approx(by_hand, rel=1e-6)
    labels[:, 3:] = 255  # three rows are left, and the shares stay as they are
    assert boundary_loss(logits, labels) == pytest.approx(by_hand, rel=1e-6)


def test_the_border_loss_is_focal():
    labels = torch.zeros(1, 8, 16, dtype=torch.long)
    labels[..., 8:] = 1
    labels[:, 6:] = 255
    logits = torch.full((1, 1, 8, 16), 1.5)
    p = 1 / (1 + np.exp(-1.5))
    on, off = (1 - p) ** 2 * -np.log(p), p**2 * -np.log(1 - p)  # 6 of 16 columns are boundary
    assert border_loss(logits, labels) == pytest.approx((6 * on + 10 * off) / 16, rel=1e-5)
