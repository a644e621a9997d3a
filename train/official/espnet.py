"""sacmehta/ESPNet: `test/Model.py` and `train/Model.py` with p = 2 and q = 8, saved by `train/main.py`.

The networks have twenty classes: the authors train the pixels that Cityscapes leaves unlabelled as the last one.
"""

import dataclasses

from roadseg.runtime.labels import CITYSCAPES, UNLABELLED

from .source import Preprocessing, Source

PYRAMID = (
    (r"\.c1\.conv\.", ".reduce."),
    *((rf"\.d{1 << i}\.conv\.", f".branches.{i}.") for i in range(5)),
    (r"(level\d_0|level\d\.\d|merge2\.2)(\.bn)?\.act\.", r"\1.out.1."),
    (r"(level\d_0|level\d\.\d|merge2\.2)(\.bn)?\.bn\.", r"\1.out.0."),
)
"""Of the pyramids of dilated convolutions."""

PUBLISHED = Source(
    "sacmehta/ESPNet@286e811",
    "espnet",
    # test/VisualizeResults.py divides by 255 behind the standardisation of pixels in 0 to 255.
    Preprocessing(
        "bgr",
        mean=(72.3923111 / 255, 82.90893555 / 255, 73.15840149 / 255),
        std=(45.3192215, 46.15289307, 44.91483307),
    ),
    align_corners=False,
    classes=(*CITYSCAPES.classes, UNLABELLED),
    rename=(
        (r"^combine_l2_l3\.0\.bn\.", "merge2.0."),
        (r"^combine_l2_l3\.0\.act\.", "merge2.1."),
        (r"^combine_l2_l3\.1\.", "merge2.2."),
        (r"^up_l2\.0\.", "merge2.3."),
        (r"^up_l2\.1\.bn\.", "merge2.4."),
        (r"^up_l2\.1\.act\.", "merge2.5."),
        *PYRAMID,
        (r"^encoder\.level1\.conv\.", "stem.0."),
        (r"^encoder\.level1\.bn\.", "stem.1."),
        (r"^encoder\.level1\.act\.", "stem.2."),
        (r"^encoder\.b(\d)\.bn\.", r"mix\1.0."),
        (r"^encoder\.b(\d)\.act\.", r"mix\1.1."),
        (r"^encoder\.level(\d)_0\.", r"down\1."),
        (r"^encoder\.classifier\.conv\.", "classify3.0."),
        (r"^br\.", "classify3.1."),
        (r"^up_l3\.0\.", "classify3.2."),
        (r"^level3_C\.conv\.", "classify2."),
        (r"^conv\.conv\.", "merge1.0."),
        (r"^conv\.bn\.", "merge1.1."),
        (r"^conv\.act\.", "merge1.2."),
        (r"^classifier\.", "merge1.3."),
        (r"^encoder\.", ""),
    ),
)

SOURCES = (PUBLISHED, dataclasses.replace(PUBLISHED, net="espnet@train"))
"""PUBLISHED's rules hold for both."""
