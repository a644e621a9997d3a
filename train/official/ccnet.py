"""speedinghzl/CCNet: `networks/ccnet.py`, saved by `train.py` as a bare state dict."""

from .resnet import EVERY_NORM, FLAT_STEM
from .source import Preprocessing, Source

SOURCES = (
    Source(
        "speedinghzl/CCNet@1fae6c6",
        "ccnet_r101",
        Preprocessing.of_bytes("bgr", mean=(104.00698793, 116.66876762, 122.67891434)),
        rename=(
            *FLAT_STEM,
            (r"^head\.bottleneck\.3\.", "head.4."),
            (r"^head\.bottleneck\.", "head."),
            (r"^head\.conva\.", "reduce."),
            (r"^head\.cca\.(query|key|value)_conv\.", r"attention.\1."),
            (r"^head\.cca\.", "attention."),
            (r"^head\.convb\.", "smooth."),
        ),
        drop={r"dsn\.": "auxiliary head, for training only"},
        absolute=EVERY_NORM,
    ),
)
