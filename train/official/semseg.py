"""hszhao/semseg: `model/{pspnet,psanet}.py`, saved as `{"epoch", "state_dict", "optimizer"}`."""

import dataclasses

from .source import Source

BACKBONE = (
    *((rf"^layer0\.{i}\.", f"backbone.conv1.{i}.") for i in (0, 1, 3, 4, 6)),
    (r"^layer0\.7\.", "backbone.bn1."),
    (r"^layer(\d)\.", r"backbone.layer\1."),
)

PSPNET_R50 = Source(
    "hszhao/semseg@7192f92",
    "pspnet_r50",
    rename=(
        *BACKBONE,
        (r"^ppm\.features\.(\d)\.1\.", r"pyramid.stages.\1.0."),
        (r"^ppm\.features\.(\d)\.2\.", r"pyramid.stages.\1.1."),
        (r"^cls\.", "head."),
    ),
    drop={r"aux\.": "auxiliary head, for training only"},
)

PSANET_R101 = Source(
    PSPNET_R50.repository,
    "psanet_r101",
    rename=(
        *BACKBONE,
        (r"^psa\.reduce\.", "collect.reduce."),
        (r"^psa\.attention\.", "collect.predict."),
        (r"^psa\.reduce_p\.", "distribute.reduce."),
        (r"^psa\.attention_p\.", "distribute.predict."),
        (r"^psa\.proj\.", "project."),
        (r"^cls\.", "head."),
    ),
    drop=PSPNET_R50.drop,
)

SOURCES = (PSPNET_R50, dataclasses.replace(PSPNET_R50, net="pspnet_r101"), PSANET_R101)
