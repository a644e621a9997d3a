"""openseg-group/OCNet.pytorch, first PkuRainBow/OCNet: `network/resnet101_*_oc.py`, saved as a bare state dict."""

import dataclasses

from .resnet import EVERY_NORM, FLAT_STEM
from .source import Preprocessing, Source

ATTENTION = (
    (r"\.f_key\.", ".embed."),
    (r"\.f_value\.", ".value."),
    (r"\.W\.", ".out."),
)
"""Of an attention whose queries are its keys."""

REDUCE = tuple((rf"^context\.{i}\.", f"reduce.{i}.") for i in range(2))
"""The convolution that stands in one Sequential with the context."""

BASE = Source(
    "openseg-group/OCNet.pytorch@68c0d73",
    "ocnet_base_r101",
    # dataset/cityscapes.py turns the image to RGB and then subtracts the mean as BGR has it.
    Preprocessing.of_bytes("rgb", mean=(102.9801, 115.9465, 122.7717)),
    rename=(
        *FLAT_STEM,
        *ATTENTION,
        *REDUCE,
        (r"^context\.2\.stages\.0\.", "context.attention."),
        (r"^context\.2\.conv_bn_dropout\.", "context.fuse."),
        (r"^cls\.", "classify."),
    ),
    drop={
        r".*\.f_query\.": "the same tensors as f_key, under a second name",
        r"dsn\.": "auxiliary head, for training only",
    },
    absolute=EVERY_NORM,
)

SOURCES = (
    BASE,
    dataclasses.replace(
        BASE,
        net="ocnet_pyramid_r101",
        rename=(
            *FLAT_STEM,
            *ATTENTION,
            (r"^layer5\.", "reduce."),
            (r"^context\.stages\.", "context.levels."),
            (r"^context\.up_dr\.", "context.widen."),
            (r"^context\.conv_bn_dropout\.", "context.fuse."),
            (r"^cls\.", "classify."),
        ),
    ),
    dataclasses.replace(
        BASE,
        net="ocnet_asp_r101",
        rename=(
            *FLAT_STEM,
            *ATTENTION,
            *REDUCE,
            (r"^context\.2\.context\.2\.stages\.0\.", "context.attention."),
            (r"^context\.2\.context\.2\.conv_bn_dropout\.", "context.mix."),
            (r"^context\.2\.context\.", "context.reduce."),
            *((rf"^context\.2\.conv{i + 2}\.", f"context.branches.{i}.") for i in range(4)),
            (r"^context\.2\.conv_bn_dropout\.", "context.fuse."),
            (r"^cls\.", "classify."),
        ),
    ),
)
"""BASE's preprocessing and dropped keys hold for all of them."""
