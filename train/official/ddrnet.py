"""ydhongHIT/DDRNet and the port chenjun2hao/DDRNet.pytorch: the same network under the same names.

Both save a wrapper of network and loss, hence `model.` before every key and the class weights of the loss.
"""

import dataclasses

from .source import Source

POOLING = (
    (r"^spp\.scale0\.", "context.scales.own."),
    *((rf"^spp\.scale{i + 1}\.", f"context.scales.pooled.{i}.") for i in range(4)),
    *((rf"^spp\.process{i + 1}\.", f"context.process.{i}.") for i in range(4)),
    (r"^spp\.", "context."),
)
"""Of the pyramid pooling, which PIDNet has too."""

SLIM = Source(
    "ydhongHIT/DDRNet@de0db31",
    "ddrnet23_slim",
    align_corners=False,
    rename=(
        (r"^model\.", ""),
        (r"^conv1\.", "stem."),
        (r"^layer5(_?)\.0\.", r"layer5\1."),
        (r"^layer(\d)_\.", r"high\1."),
        (r"^down(\d)\.", r"exchange\1.down."),
        (r"^compression(\d)\.", r"exchange\1.up."),
        *POOLING,
        (r"^final_layer\.", "head."),
    ),
    drop={
        r"(model\.)?seghead_extra\.": "auxiliary head, for training only",
        r"loss\.": "class weights of the loss",
    },
)

SOURCES = (
    SLIM,
    dataclasses.replace(SLIM, net="ddrnet23"),
    # The port upsamples what it trained itself with align_corners, unlike the files that it converted.
    dataclasses.replace(SLIM, repository="chenjun2hao/DDRNet.pytorch@bc0e193", align_corners=True),
    dataclasses.replace(SLIM, repository="chenjun2hao/DDRNet.pytorch@bc0e193", net="ddrnet23", align_corners=True),
)
"""SLIM's rules hold for all of them."""
