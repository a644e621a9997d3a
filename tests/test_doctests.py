"""The examples in docstrings are true."""

import doctest
import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from roadseg.runtime.optional import EXTRAS

OPTIONAL = {*EXTRAS, "ml_dtypes", "onnx_ir"}
PACKAGES = ("roadseg", *(f"roadseg.{step}" for step in ("train", "export", "calib", "engines", "runtime")))


def module_names():
    """Every module of ours but the ones that run when they are imported; nothing of them is imported yet."""
    names = set()
    for package in PACKAGES:
        for folder in map(Path, importlib.util.find_spec(package).submodule_search_locations):
            for path in folder.rglob("*.py"):
                parts = path.relative_to(folder).with_suffix("").parts
                names.add(".".join([package, *parts]).removesuffix(".__init__"))
    return sorted(name for name in names if not name.endswith(".__main__"))


@pytest.mark.parametrize("name", module_names())
def test_examples_hold(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{name} needs {error.name}")
    failures, _ = doctest.testmod(module, extraglobs={"np": np})
    assert failures == 0


def test_modules_of_every_folder_are_found():
    assert {
        "roadseg.cli",
        "roadseg.train.data.camvid",
        "roadseg.export.passes.simplify",
        "roadseg.runtime.spec",
    } <= set(module_names())
