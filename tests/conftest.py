"""Fixtures that several folders use."""

import gc
import os
from pathlib import Path

import pytest

from roadseg.runtime import EngineError
from roadseg.runtime.cuda import find_gpu


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, saying why."""
    if item.get_closest_marker("gpu"):
        try:
            find_gpu()
        except EngineError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real road scenes; the test is skipped where there is none."""
    root = Path(os.environ.get("ROADSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no real road scenes at {root}; set ROADSEG_DATA")
    return root


def pytest_configure(config: pytest.Config) -> None:
    """Set what has to be set before anything is imported.

    The garbage collector runs less often: an exporter's graphs grow by far more objects than it waits for. Triton
    decides as it is imported whether it interprets kernels: it compiles them in `pytest -m gpu` alone.
    """
    gc.set_threshold(50_000)
    if config.getoption("-m") != "gpu":
        os.environ["TRITON_INTERPRET"] = "1"
