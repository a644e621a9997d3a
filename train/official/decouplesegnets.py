"""lxtGH/DecoupleSegNets: `network/deepv3.py` and `network/gffnets.py`.

Saved as `{"state_dict", "optimizer", "epoch", "mean_iu", "command"}` of a DataParallel.
"""

import dataclasses

import torch

from .source import Source, Weights


def put_average_last(weights: Weights) -> Weights:
    """Their pyramid pooling puts the global average before its other branches; ours puts it behind them."""
    key = "reduce_context.weight"
    return {**weights, key: torch.roll(weights[key], -256, dims=1)} if key in weights else weights


STEM = (
    (r"^layer0\.0\.", "backbone.conv1."),
    (r"^layer0\.1\.", "backbone.bn1."),
    (r"^layer(\d)\.", r"backbone.layer\1."),
)
"""Of their ResNets, wrapped by every network."""

ATROUS = ((r"^aspp\.features\.", "context.branches."), (r"^aspp\.img_conv\.", "context.average."))

DEEPLABV3PLUS_R50 = Source(
    "lxtGH/DecoupleSegNets@7ec7fc4",
    "deeplabv3plus_r50",
    rename=(
        *STEM,
        *ATROUS,
        (r"^bot_aspp\.", "reduce_context."),
        (r"^bot_fine\.", "reduce_fine."),
        (r"^final\.", "head."),
    ),
    convert=put_average_last,
)

DEEPLABV3PLUS = (DEEPLABV3PLUS_R50, dataclasses.replace(DEEPLABV3PLUS_R50, net="deeplabv3plus_r101"))
"""lxtGH/SFSegNets has them as well."""

GFFNET_WR38 = Source(
    "lxtGH/DecoupleSegNets@7ec7fc4",
    "gffnet_wr38",
    rename=(
        (r"^mod1\.conv1\.", "backbone.stem."),
        *(
            (rf"^mod{stage + 2}\.block{block + 1}\.", f"backbone.stages.{stage}.{block}.")
            for stage in range(6)
            for block in range(6)
        ),
        (r"\.bn1\.0\.", ".norm."),
        (r"\.proj_conv\.", ".project."),
        (r"\.convs\.conv1\.", ".convs.0."),
        (r"\.convs\.bn2\.0\.", ".convs.1."),
        (r"\.convs\.conv2\.", ".convs.3."),
        (r"\.convs\.bn3\.0\.", ".convs.4."),
        (r"\.convs\.conv3\.", ".convs.7."),
        *ATROUS,
        (r"^bot_aspp\.", "reduce_context."),
        *((rf"^gff_head\.d_in{level + 1}\.", f"laterals.{level}.") for level in range(3)),
        *((rf"^gff_head\.gate{level + 1}\.0\.", f"fusion.gates.{level}.") for level in range(3)),
        *((rf"^gff_head\.dense_{3 * level + 3}\.", f"pyramid.blocks.{level}.") for level in range(3)),
        *(
            (rf"^(pyramid\.blocks\.\d)\.{theirs}\.", rf"\1.{ours}.")
            for theirs, ours in (("norm1", 0), ("conv1", 2), ("norm2", 3), ("conv2", 5))
        ),
        (r"^gff_head\.cls\.", "head."),
    ),
    convert=put_average_last,
)

SOURCES = (*DEEPLABV3PLUS, GFFNET_WR38, dataclasses.replace(GFFNET_WR38, net="gffnet_wr38@fusion_alone"))
"""All but the networks with decoupled edges, which are not in MODELS."""
