"""Network to checked ONNX model. Names are imported when they are first used: operators need none of them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .check import lint as lint
    from .model import ExportReport as ExportReport
    from .model import convert as convert
    from .model import export as export

HOMES = {
    "ExportReport": "model",
    "convert": "model",
    "export": "model",
    "lint": "check",
}
"""Module of each name, so that a network's operators can be imported without the exporter."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
