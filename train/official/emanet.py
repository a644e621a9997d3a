"""XiaLiPKU/EMANet: `network.py`, saved by `train.py` as `{"net", "step"}`.

Its released weights are those of PASCAL VOC; whoever trains it on Cityscapes gets the same names.
"""

import dataclasses

from roadseg.runtime.labels import VOC

from .source import Source

CITYSCAPES = Source(
    "XiaLiPKU/EMANet@e73a08a",
    "emanet_r101",
    rename=(
        (r"^extractor\.0\.", "backbone.conv1."),
        (r"^extractor\.1\.", "backbone.bn1."),
        *((rf"^extractor\.{i + 3}\.", f"backbone.layer{i}.") for i in range(1, 5)),
        (r"^fc0\.conv\.", "reduce.0."),
        (r"^fc0\.bn\.", "reduce.1."),
        (r"^emau\.mu$", "attention.bases"),
        (r"^emau\.conv1\.", "attention.embed."),
        (r"^emau\.conv2\.", "attention.project."),
        (r"^fc1\.0\.conv\.", "head.0."),
        (r"^fc1\.0\.bn\.", "head.1."),
        (r"^fc2\.", "head.4."),
    ),
)

SOURCES = (CITYSCAPES, dataclasses.replace(CITYSCAPES, classes=VOC.classes))
