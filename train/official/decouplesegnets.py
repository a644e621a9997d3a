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

SOURCES = (DEEPLABV3PLUS_R50, dataclasses.replace(DEEPLABV3PLUS_R50, net="deeplabv3plus_r101"))
"""Of this repository; lxtGH/SFSegNets has the first two as well."""
