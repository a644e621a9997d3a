"""lxtGH/GALD-DGCNet: `libs/models/{GALDNet,DualGCNNet,PSPNet}.py`, saved as bare state dicts."""

import dataclasses

import torch

from .resnet import FLAT_STEM
from .source import IMAGENET, Preprocessing, Source, Weights

REPOSITORY = "lxtGH/GALD-DGCNet@368150f"

CAFFE = Preprocessing.of_bytes("bgr", mean=(104.00698793, 116.66876762, 122.67891434))
"""The scripts' default, and inferenceGALD.py; those of DGCNet say `--rgb 1`."""

BACKBONE = ((r"^(conv1|bn1|layer\d)\.", r"backbone.\1."),)
HEAD = (
    (r"^head\.conva\.", "reduce."),
    (r"^head\.convb\.", "smooth."),
    (r"^head\.bottleneck\.", "head."),
)
AUXILIARY = {r"dsn\.": "auxiliary head, for training only"}


def add_a_dimension(weights: Weights) -> Weights:
    """The convolution over positions, which they flatten before it and we behind it."""
    key = "context.positions.3.update.0.weight"
    return {**weights, key: weights[key][..., None]} if key in weights else weights


def put_means_last(weights: Weights) -> Weights:
    """Their pyramid comes before the features themselves; ours behind them."""
    key = "head.0.weight"
    return {**weights, key: torch.roll(weights[key], 2048, dims=1)} if key in weights else weights


GALD_R50 = Source(
    REPOSITORY,
    "galdnet_r50",
    CAFFE,
    rename=(
        *BACKBONE,
        (r"^head\.a2block\.down\.", "context.down."),
        *(
            (rf"^head\.a2block\.long_relation\.{theirs}\.", f"context.gather.{ours}.")
            for theirs, ours in (("t", "query"), ("p", "key"), ("g", "value"), ("z", "out"), ("gn", "norm"))
        ),
        *((rf"^head\.a2block\.local_attention\.dconv{i + 1}\.", f"context.distribute.{i}.") for i in range(3)),
        *HEAD,
    ),
    drop=AUXILIARY,
)

DGCNET_R50 = Source(
    REPOSITORY,
    "dgcnet_r50",
    IMAGENET,
    rename=(
        *BACKBONE,
        *((rf"^head\.dualgcn\.local\.{2 * i}\.", f"context.positions.{i}.0.") for i in range(3)),
        *((rf"^head\.dualgcn\.local\.{2 * i + 1}\.", f"context.positions.{i}.1.") for i in range(3)),
        (r"^head\.dualgcn\.gcn_local_attention\.", "context.positions.3."),
        (r"^head\.dualgcn\.final\.", "context.fuse."),
        (r"^head\.dualgcn\.", "context.features."),
        (r"\.node_q\.", ".query."),
        (r"\.node_k\.", ".key."),
        (r"\.node_v\.", ".value."),
        (r"\.features\.(conv|bn)_adj\.", r".features.over_nodes.\1."),
        (r"\.features\.(conv|bn)_wg\.", r".features.over_states.\1."),
        (r"\.positions\.3\.(conv|bn)_wg\.", r".positions.3.update.\1."),
        (r"\.features\.phi\.", ".features.embed.0."),
        (r"\.features\.bn_phi\.", ".features.embed.1."),
        (r"\.features\.theta\.", ".features.project.0."),
        (r"\.features\.bn_theta\.", ".features.project.1."),
        (r"\.features\.conv3\.", ".features.out.0."),
        (r"\.features\.bn3\.", ".features.out.1."),
        (r"\.(over_nodes|over_states|update)\.conv\.", r".\1.0."),
        (r"\.(over_nodes|over_states|update)\.bn\.", r".\1.1."),
        *HEAD,
    ),
    drop=AUXILIARY,
    convert=add_a_dimension,
)

PSPNET_R50 = Source(
    REPOSITORY,
    "pspnet_r50@lxtgh",
    CAFFE,
    rename=(
        *FLAT_STEM,
        (r"^head\.0\.stages\.(\d)\.1\.", r"pyramid.stages.\1.0."),
        (r"^head\.0\.stages\.(\d)\.2\.", r"pyramid.stages.\1.1."),
        (r"^head\.1\.", "head.4."),
        (r"^head\.0\.bottleneck\.", "head."),
    ),
    drop=AUXILIARY,
    convert=put_means_last,
)

SOURCES = (
    GALD_R50,
    dataclasses.replace(GALD_R50, net="galdnet_r101"),
    DGCNET_R50,
    dataclasses.replace(DGCNET_R50, net="dgcnet_r101"),
    PSPNET_R50,
    dataclasses.replace(PSPNET_R50, net="pspnet_r101@lxtgh"),
)
