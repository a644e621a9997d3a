"""Tramac/Fast-SCNN-pytorch: `models/fast_scnn.py`, saved by `train.py` as a bare state dict."""

from .source import Source

SOURCES = (
    Source(
        "Tramac/Fast-SCNN-pytorch@0638517",
        "fastscnn",
        drop={r"auxlayer\.": "auxiliary head, for training only"},
    ),
)
