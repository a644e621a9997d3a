import numpy as np
import pytest

from roadseg.runtime import DataError
from roadseg.runtime.images import read_frame

cv2 = pytest.importorskip("cv2")


def gradient(rows=32, columns=48):
    y, x = np.mgrid[:rows, :columns]
    return np.stack([y * 7, x * 5, (x + y) * 3], axis=2).astype(np.uint8)


def test_frames_come_back_as_rgb(tmp_path):
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 250
    cv2.imwrite(str(tmp_path / "red.png"), rgb[..., ::-1])
    assert (read_frame(tmp_path / "red.png") == rgb).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_image_that_was_cut_short_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"frame{suffix}"
    cv2.imwrite(str(path), gradient())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="cut short"):
        read_frame(path)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png cannot be read: No such file"):
        read_frame(tmp_path / "nowhere.png")
