"""The figures that pages state are those that were measured."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.gpu import kernel_table, network_table, page

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def found():
    return json.loads((RESULTS / "h200" / "gpu.json").read_text())


@pytest.fixture(scope="module")
def written():
    """Sections of docs/gpu.md that are made of results, by name."""
    text = (ROOT / "docs" / "gpu.md").read_text()
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n?<!-- end -->", text, re.DOTALL))


def test_the_page_beside_the_samples_is_made_of_them(found):
    assert (RESULTS / "h200" / "README.md").read_text() == page(found)


@pytest.mark.parametrize(("section", "table"), [("kernels", kernel_table), ("networks", network_table)])
def test_the_tables_in_the_documentation_are_those_of_the_samples(found, written, section, table):
    assert written[section] == table(found).partition("\n\n")[2]


def test_the_messages_in_the_documentation_are_the_exact_ones(written):
    rows = json.loads((RESULTS / "h100" / "tensorrt_rtx.json").read_text())["tensorrt_rtx"]
    said = dict.fromkeys(message for row in rows for message in row["said"])
    assert written["messages"].splitlines() == [f"    {message}" for message in said]


def test_every_latency_has_a_hundred_samples(found):
    timed = [value for row in [*found["kernels"], *found["networks"]] for value in row.values()]
    samples = [value["samples_ms"] for value in timed if isinstance(value, dict)]
    assert samples
    assert all(len(ms) == 100 and min(ms) > 0 for ms in samples)
