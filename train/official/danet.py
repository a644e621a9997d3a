"""junfu1115/DANet, which is PyTorch-Encoding: `encoding/models/sseg/{danet,deeplab}.py`.

Saved by its training scripts as `{"epoch", "state_dict", "optimizer", "best_pred"}`. DANet is trained with
`--multi-grid --multi-dilation 4 8 16` and a 7x7 stem.
"""

import dataclasses

from .source import Source

DANET_R50 = Source(
    "junfu1115/DANet@766c34e",
    "danet_r50",
    rename=(
        (r"^pretrained\.", "backbone."),
        (r"^head\.conv5a\.", "position.0."),
        (r"^head\.sa\.gamma$", "position.1.gamma"),
        (r"^head\.sa\.(query|key|value)_conv\.", r"position.1.\1."),
        (r"^head\.conv51\.", "position.2."),
        (r"^head\.conv5c\.", "channel.0."),
        (r"^head\.sc\.", "channel.1."),
        (r"^head\.conv52\.", "channel.2."),
        (r"^head\.conv8\.", "classify."),
    ),
    drop={r"head\.conv[67]\.": "logits of one branch, for training only"},
)

DEEPLABV3 = Source(
    "junfu1115/DANet@e57e90d",
    "deeplabv3_r101",
    rename=(
        (r"^pretrained\.", "backbone."),
        *((rf"^head\.aspp\.b{i}\.", f"context.branches.{i}.") for i in range(4)),
        *((rf"^head\.aspp\.b4\.gap\.{i + 1}\.", f"context.average.{i}.") for i in range(2)),
        (r"^head\.aspp\.project\.", "project."),
        (r"^head\.block\.", "head."),
    ),
    drop={r"auxlayer\.": "auxiliary head, for training only"},
)

SOURCES = (DANET_R50, dataclasses.replace(DANET_R50, net="danet_r101"), DEEPLABV3)
