import os

from roadseg.train.data import open_camvid


def test_a_fingerprint_stays_until_a_file_changes(camvid_root):
    first = open_camvid(camvid_root, "train").fingerprint
    assert open_camvid(camvid_root, "train").fingerprint == first
    labels = camvid_root / "trainannot" / "A_000.png"
    os.utime(labels, (1, 1))
    assert open_camvid(camvid_root, "train").fingerprint != first


def test_two_splits_have_two_fingerprints(camvid_root):
    assert open_camvid(camvid_root, "train").fingerprint != open_camvid(camvid_root, "val").fingerprint
