"""DeepMotionAIResearch/DenseASPP: `models/DenseASPP.py`, saved as a bare state dict of DataParallel.

The published files are of PyTorch 0.3, which took names with a dot ("norm.1"); the code has had "norm_1" since.
"""

import dataclasses

from .source import Preprocessing, Source

STATISTICS = Preprocessing(mean=(0.290101, 0.328081, 0.286964), std=(0.182954, 0.186566, 0.184475))
"""inference.py."""

ON_161 = Source(
    "DeepMotionAIResearch/DenseASPP@b1b985e",
    "denseaspp161",
    STATISTICS,
    align_corners=True,
    rename=(
        (r"^features\.conv0\.", "features.stem.0."),
        (r"^features\.norm0\.", "features.stem.1."),
        (r"^features\.norm5\.", "features.norm."),
        *((rf"^features\.denseblock{i + 1}\.", f"features.blocks.{i}.") for i in range(4)),
        *((rf"^features\.transition{i + 1}\.norm\.", f"features.transitions.{i}.0.") for i in range(4)),
        *((rf"^features\.transition{i + 1}\.conv\.", f"features.transitions.{i}.2.") for i in range(4)),
        *((rf"\.denselayer{i + 1}\.", f".{i}.convolutions.") for i in range(36)),
        (r"^(features\..*)\.norm[._]1\.", r"\1.0."),
        (r"^(features\..*)\.conv[._]1\.", r"\1.2."),
        (r"^(features\..*)\.norm[._]2\.", r"\1.3."),
        (r"^(features\..*)\.conv[._]2\.", r"\1.5."),
        (r"^ASPP_3\.conv[._]1\.", "branches.0.0.0."),
        *((rf"^ASPP_{rate}\.", f"branches.{i}.") for i, rate in enumerate((3, 6, 12, 18, 24))),
        (r"^(branches\.\d)\.norm[._]1\.", r"\1.0.0."),
        (r"^(branches\.\d)\.conv[._]1\.", r"\1.0.2."),
        (r"^(branches\.\d)\.norm[._]2\.", r"\1.1.0."),
        (r"^(branches\.\d)\.conv[._]2\.", r"\1.1.2."),
        (r"^classification\.", "classifier."),
    ),
)

SOURCES = (ON_161, dataclasses.replace(ON_161, net="denseaspp121"))
"""ON_161's rules hold for both."""
