"""What is known of every network of the zoo: what `roadseg models` lists."""

from __future__ import annotations

import dataclasses
import json
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


def list_networks() -> list[NetworkCard]:
    """Every network, in the order of the registry."""
    from roadseg.train import MODELS

    measured = read_measured()
    return [describe_network(name, measured.get(name, [])) for name in track(list(MODELS), "count")]


def describe_network(name: str, rows: list[dict[str, Any]]) -> NetworkCard:
    """The card of one network; `rows` are its measurements, one per size."""
    import torch

    from roadseg.train import MODELS, RECIPES, SOURCES

    architecture = MODELS[name]
    with torch.device("meta"):
        deployed, whole = (count_parameters(architecture(aux=aux)) for aux in (False, True))
    repositories = [s.repository.partition("@")[0] for s in SOURCES if s.net.partition("@")[0] == name]
    return NetworkCard(
        name,
        architecture.paper,
        deployed,
        whole - deployed,
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


def count_parameters(net: Any) -> int:
    """Of all tensors that training changes."""
    return sum(parameter.numel() for parameter in net.parameters())


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
            kept = {key: row[key] for key in ("size", "gmac", "agreement")}
            kept["compute_capability"] = study["conditions"]["compute_capability"]
            condensed.setdefault(row["network"], []).append(kept)
    return condensed


def table(networks: list[NetworkCard]) -> Table:
    """The networks for the terminal."""
    shown = Table(box=None, header_style="bold")
    for heading in ("network", "params M", "GMAC", "sizes", "published mIoU", "import from"):
        shown.add_column(heading, overflow="fold")
    for card in networks:
        gmac = "" if card.gmac is None else f"{card.gmac:.1f}"
        shown.add_row(
            card.name, f"{card.params / 1e6:.2f}", gmac, card.sizes, card.published, card.steps["import"]
        )
    return shown
