"""Fixtures that several folders use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real road scenes; the test is skipped where there is none."""
    root = Path(os.environ.get("ROADSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no real road scenes at {root}; set ROADSEG_DATA")
    return root
