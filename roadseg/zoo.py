"""What is known of every network of the zoo: what `roadseg models` lists."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from rich.table import Table

from roadseg.runtime import Size, track

MEASURED_FILE = "zoo.json"
"""Beside this module: what benchmarks/zoo.py measured, condensed by `condense`."""


@dataclasses.dataclass(frozen=True)
class NetworkCard:
    """One network of the zoo."""

    name: str
    """Key of roadseg.train.MODELS."""
    paper: str
    params: int
    """Of what runs at inference."""
    aux_params: int
    """Of the heads that only training needs."""
    gmac: float | None
    """Multiply-adds of convolutions and matrix products at 1024x2048 or the nearest legal size, in 1e9; None where
    they were not counted."""
    sizes: str
    """Legal rows and columns, e.g. "32k" for multiples of 32."""
    published: str
    """mIoU in percent with its conditions."""
    variants: tuple[str, ...]
    steps: dict[str, str]
    """How far the network is known to go, by step: train, import, export, build."""
    note: str


def list_networks(names: Sequence[str] = ()) -> list[NetworkCard]:
    """The named networks, or all of them in the order of the registry.

    Raises:
        UsageError: if there is no network of a name.
    """
    from roadseg.train import MODELS
    from roadseg.train.models import require_known

    for name in names:
        require_known(name)
    measured = read_measured()
    return [describe_network(name, measured.get(name, [])) for name in track(list(names or MODELS), "count")]


def describe_network(name: str, rows: list[dict[str, Any]]) -> NetworkCard:
    """The card of one network; `rows` are its measurements, one per size."""
    from roadseg.train import MODELS, RECIPES, SOURCES

    architecture = MODELS[name]
    params, aux_params = (rows[0]["params"], rows[0]["aux_params"]) if rows else count_parameters(name)
    repositories = [s.repository.partition("@")[0] for s in SOURCES if s.net.partition("@")[0] == name]
    return NetworkCard(
        name,
        architecture.paper,
        params,
        aux_params,
        max((row["gmac"] for row in rows), default=None),
        str(architecture.sizes),
        architecture.published,
        tuple(architecture.variants),
        {
            "train": "recipe" if name in RECIPES else "no recipe",
            "import": ", ".join(dict.fromkeys(repositories)) or "none published",
            "export": ", ".join(export_state(row) for row in rows) or "not measured",
            "build": ", ".join(build_state(row) for row in rows) or "not measured",
        },
        architecture.note,
    )


def count_parameters(name: str) -> tuple[int, int]:
    """Of what runs at inference, and of the heads that only training needs."""
    import torch

    from roadseg.train import MODELS

    with torch.device("meta"):
        deployed, whole = (sum(p.numel() for p in MODELS[name](aux=aux).parameters()) for aux in (False, True))
    return deployed, whole - deployed


def export_state(row: dict[str, Any]) -> str:
    """How a model of one size compared with PyTorch."""
    agreement = row["agreement"]
    return f"{size_text(row['size'])}" + (f" (agreement {agreement:.6f})" if agreement is not None else "")


def build_state(row: dict[str, Any]) -> str:
    """What a plan of one size was built for."""
    return f"{size_text(row['size'])} (TensorRT-RTX, {row['compute_capability']})"


def size_text(size: Size) -> str:
    """Rows x columns."""
    return f"{size[0]}x{size[1]}"


def read_measured() -> dict[str, list[dict[str, Any]]]:
    """Measurements by network."""
    file = resources.files("roadseg") / MEASURED_FILE
    measured: dict[str, list[dict[str, Any]]] = json.loads(file.read_text())
    return measured


def condense(study: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What `list_networks` needs of the result of benchmarks/zoo.py."""
    condensed: dict[str, list[dict[str, Any]]] = {}
    for row in study["rows"]:
        if "error" not in row:
            kept = {key: row[key] for key in ("size", "params", "aux_params", "gmac", "agreement")}
            kept["compute_capability"] = study["conditions"]["compute_capability"]
            condensed.setdefault(row["network"], []).append(kept)
    return condensed


def table(networks: list[NetworkCard]) -> Table:
    """The networks for the terminal, a line each."""
    shown = Table(box=None, header_style="bold", caption="`roadseg models NAME` tells all of one.")
    for heading in ("network", "params M", "GMAC", "sizes", "mIoU", "checkpoints of"):
        shown.add_column(heading, no_wrap=heading != "checkpoints of")
    for card in networks:
        gmac = "" if card.gmac is None else f"{card.gmac:.1f}"
        millions, miou = f"{card.params / 1e6:.2f}", briefly(card.published)
        shown.add_row(card.name, millions, gmac, card.sizes, miou, repositories_briefly(card.steps["import"]))
    return shown


def briefly(published: str) -> str:
    """The figure that the conditions belong to.

    >>> briefly("77.30 val, crops of 713, single scale; 78.38 several scales")
    '77.30 val'
    >>> briefly("none of this form; 82.1 test of another")
    ''
    """
    figure = re.match(r"[\d.]+( val| test)?", published)
    return figure[0] if figure else ""


def repositories_briefly(names: str) -> str:
    """Repositories without their owners.

    >>> repositories_briefly("hszhao/semseg, lxtGH/GALD-DGCNet")
    'semseg, GALD-DGCNet'
    >>> repositories_briefly("none published")
    ''
    """
    return ", ".join(name.partition("/")[2] for name in names.split(", ") if "/" in name)
