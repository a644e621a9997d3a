"""lxtGH/Fast_Seg: `libs/models/{ICNet,DFSegNet,FastSCNN}.py`, saved by `train_distribute.py` as bare state dicts.

It publishes a Cityscapes file of ICNet alone.
"""

import dataclasses

from .resnet import FLAT_STEM
from .source import Preprocessing, Source

REPOSITORY = "lxtGH/Fast_Seg@7895738"

PYRAMID = (
    (r"^context\.stages\.(\d)\.1\.", r"context.pyramid.stages.\1.0."),
    (r"^context\.stages\.(\d)\.2\.", r"context.pyramid.stages.\1.1."),
    (r"^context\.bottleneck\.", "context.fuse."),
)
"""Of pyramid pooling, once it is called `context`; in lxtGH/SFSegNets too."""
CASCADE = (
    (r"^(?:ic_)?head\.cff_24\.", "fuse_half."),
    (r"^(?:ic_)?head\.cff_12\.", "fuse_whole."),
    (r"\.conv_low\.", ".coarse."),
    (r"\.conv_high\.", ".fine."),
    (r"^(?:ic_)?head\.conv_cls\.", "head."),
    (r"^conv_sub1\.", "whole."),
    (r"^conv_sub2\.", "reduce_half."),
    (r"^conv_sub4\.", "reduce_quarter."),
)
"""Of ICNet, in lxtGH/SFSegNets too."""
CASCADE_AUXILIARY = {r"(ic_)?head\.cff_\d+\.conv_low_cls\.": "auxiliary head, for training only"}

ICNET = Source(
    REPOSITORY,
    "icnet",
    # Its training script's `--rgb 0`; the prediction script subtracts (103.939, 116.779, 123.68).
    Preprocessing.of_bytes("bgr", mean=(104.00698793, 116.66876762, 122.67891434)),
    rename=(
        (r"^((?:backbone\.head|conv_sub).*)\.conv\.", r"\1.0."),
        (r"^(conv_sub.*)\.bn\.", r"\1.1."),
        (r"^backbone\.head", "context"),
        (r"^backbone\.", ""),
        *FLAT_STEM,
        *PYRAMID,
        *CASCADE,
    ),
    drop=CASCADE_AUXILIARY,
)

DFSEG1 = Source(
    REPOSITORY,
    "dfseg1",
    rename=(
        (r"^backbone\.stage1\.", "backbone.stem."),
        *((rf"^backbone\.stage{i + 2}\.", f"backbone.stages.{i}.") for i in range(4)),
        *((rf"^backbone\.stage{i // 2 + 2}_{i % 2 + 1}\.", f"backbone.stages.{i}.") for i in range(6)),
        (r"^cc5\.", "lateral_deep."),
        (r"^cc4\.", "lateral_middle."),
        (r"^cc3\.", "lateral_fine."),
        (r"^ppm\.", "context."),
        *PYRAMID,
        (r"^fn4\.fusion\.", "fuse_middle."),
        (r"^fn3\.fusion\.", "fuse_fine."),
        (r"^fc\.", "head."),
    ),
    drop={r"backbone\.fc\.": "ImageNet's classifier"},
)

FAST_SCNN = Source(REPOSITORY, "fastscnn@fast_seg", drop={r"auxlayer\.": "auxiliary head, for training only"})

SOURCES = (ICNET, DFSEG1, dataclasses.replace(DFSEG1, net="dfseg2"), FAST_SCNN)
"""DF2-Seg's names have the rules of DF1-Seg's; its stages are in two parts each."""
