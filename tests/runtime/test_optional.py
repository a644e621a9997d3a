"""Optional libraries are named with the extra that brings them."""

import math
import sys

import pytest

from roadseg.runtime import MissingDependencyError, require
from roadseg.runtime.optional import EXTRAS


def test_what_is_installed_is_imported(monkeypatch):
    monkeypatch.setitem(EXTRAS, "math", "train")
    assert require("math", "counting") is math


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(EXTRAS, "no_such_library", "video")
    with pytest.raises(
        MissingDependencyError, match=r"^reading a\.mp4 needs no_such_library.*'roadseg\[video\]'$"
    ):
        require("no_such_library", "reading a.mp4")


def test_a_part_of_a_library_is_brought_by_the_same_extra(monkeypatch):
    monkeypatch.setitem(EXTRAS, "no_such_library", "rtx")
    with pytest.raises(MissingDependencyError, match=r"needs no_such_library\.driver.*'roadseg\[rtx\]'$"):
        require("no_such_library.driver", "device memory")


def test_a_library_that_cannot_load_is_told_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / "half_installed.py").write_text(
        "raise OSError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, "half_installed", "tensorrt")
    with pytest.raises(MissingDependencyError, match=r"libnvinfer\.so\.10: cannot open"):
        require("half_installed", "opening m.plan")


def test_a_module_of_ours_that_lacks_a_library_names_its_extra(monkeypatch, tmp_path):
    (tmp_path / "our_module.py").write_text("import cv2")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r"needs our_module, which .*'roadseg\[train\]'$"):
        require("our_module", "resizing")
