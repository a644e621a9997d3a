"""Recipes of the real-time networks, each with its source; see accurate.py for what is left out."""

from __future__ import annotations

from dataclasses import replace

from ..augment import Augmentation
from ..losses import Loss
from ..recipe import Group, Recipe
from .base import PLAIN, crops, epochs

FASTSCNN = Recipe(
    # The paper (arXiv 1902.04502) trains 1000 epochs with SGD at 0.045. On two CPU cores there is time for a tenth
    # of that: AdamW converges faster, averaged weights stand in for the long tail of the schedule, and the loss
    # reads every second row and column because full resolution costs more than the network itself.
    Augmentation(crop=(288, 384)),
    Loss(stride=2),
    class_weights="log",
    epochs=110,
    batch=8,
    optimizer="adamw",
    rate=3e-3,
    weight_decay=0.02,
    ema=0.99,
)

BISENET_R18 = Recipe(
    # ycszen/TorchSeg, model/bisenet/cityscapes.bisenet.R18: crop 1024, OHEM 0.7, both auxiliary heads at weight 1,
    # scales 0.75 to 2, SGD 0.01, 80 epochs of 1000 steps at batch 16. Its tenfold rate outside the context path is
    # left out, as the network starts from random weights.
    Augmentation(crop=(1024, 1024), scale=(0.75, 2.0)),
    Loss("ohem", aux_weight=1.0),
    epochs=430,
    batch=16,
    optimizer="sgd",
    rate=0.01,
    weight_decay=5e-4,
)

# CoinCheung/BiSeNet, configs/bisenetv2_city.py, lib/lr_scheduler.py and tools/train_amp.py: two GPUs with 8
# frames each, heads ten times as fast, convolutions decayed, exponential warm-up from a tenth in 1000 steps.
BISENETV2 = replace(
    PLAIN,
    augmentation=crops(512, 1024, (0.25, 2.0), jitter=0.4),
    loss=Loss("ohem", aux_weight=1.0),
    epochs=epochs(150_000, 16),
    batch=16,
    rate=5e-3,
    decayed="weights",
    groups=(Group("head", 10.0), Group("aux", 10.0)),
    warmup=1000 / 150_000,
    warmup_shape="exponential",
    warmup_start=0.1,
)

# lxtGH/Fast_Seg, exp/train_{icnet,dfanet,dfsegv1}.sh: four GPUs with 4 frames each, OHEM 0.7 with at least 100000
# pixels per GPU, scales 0.7 to 2.1.
FAST_SEG = replace(
    PLAIN,
    augmentation=crops(832, 832, (0.7, 2.1)),
    loss=Loss("ohem", ohem_share=0, ohem_min_kept=100_000 // 4),
    epochs=epochs(50_000, 16),
    batch=16,
)

# orsic/swiftnet, configs/rn18_single_scale.py: what comes from ImageNet learns at a quarter, and is decayed by
# one.
SWIFTNET = replace(
    PLAIN,
    augmentation=crops(768, 768, (0.5, 2.0)),
    epochs=250,
    batch=14,
    optimizer="adam",
    rate=4e-4,
    weight_decay=1e-4,
    groups=(Group("backbone", 0.25, 0.25),),
    schedule="cosine",
    floor=1e-6 / 4e-4,
)

# davidtvs/PyTorch-ENet, args.py and save/ENet_Cityscapes/ENet_summary.txt: whole frames at 512x1024, Adam 5e-4, a
# tenth of it every 100 of 300 epochs, classes weighed by 1 / ln(1.02 + share), no augmentation; mirroring is ours.
# The authors (e-lab/ENet-training) train the encoder alone before the decoder joins it.
ENET = replace(
    PLAIN,
    augmentation=crops(512, 1024, (0.5, 0.5)),
    class_weights="log",
    epochs=300,
    batch=4,
    optimizer="adam",
    rate=5e-4,
    weight_decay=2e-4,
    schedule="step",
    drop=0.1,
    drop_every=100 / 300,
)

# sacmehta/ESPNet, train/main.py: whole frames at 256 to 768 rows, Adam 5e-4 halved every 100 of 300 epochs,
# classes weighed by 1 / ln(1.10 + share); the constant here is 1.02. It trains the unlabelled pixels as a class,
# we do not.
ESPNET = replace(
    PLAIN,
    augmentation=crops(512, 1024, (0.25, 0.75)),
    class_weights="log",
    epochs=300,
    batch=12,
    optimizer="adam",
    rate=5e-4,
    schedule="step",
    drop=0.5,
    drop_every=100 / 300,
)

# XuJiacong/PIDNet, configs/cityscapes/pidnet_small_cityscapes.yaml, utils/criterion.py: two GPUs with 6 frames
# each, OHEM 0.9 with at least 131072 pixels per GPU on the main logits, plain cross-entropy at 0.4 on the P
# branch.
PIDNET = replace(
    PLAIN,
    augmentation=crops(1024, 1024, (0.5, 2.1)),
    loss=Loss(
        "ohem",
        aux_weight=0.4,
        aux_kind="ce",
        ohem_threshold=0.9,
        ohem_share=0,
        ohem_min_kept=131_072 // 6,
        edges="boundary",
        edge_weight=20.0,
    ),
    class_weights="cityscapes",
    epochs=484,
    batch=12,
)

# chenjun2hao/DDRNet.pytorch, experiments/cityscapes/ddrnet23_slim.yaml: two GPUs with 8 frames each. Its weights
# [1, 0.4] meet the logits in the wrong order there; the main ones weigh 1 here.
DDRNET = replace(
    PIDNET,
    loss=Loss("ohem", aux_weight=0.4, aux_kind="ce", ohem_threshold=0.9, ohem_share=0, ohem_min_kept=131_072 // 8),
    batch=16,
)

# MichaelFan01/STDC-Seg, train.py, optimizer_loss.py: three GPUs with 16 frames each, everything behind the
# context path ten times as fast, exponential warm-up from 1e-5 in 1000 steps. Its minimum of hard pixels is 1/16
# of all.
STDC = replace(
    PLAIN,
    augmentation=crops(512, 1024, (0.125, 1.5), jitter=0.5),
    loss=Loss("ohem", aux_weight=1.0, edges="detail"),
    epochs=epochs(60_000, 48),
    batch=48,
    decayed="weights",
    groups=(Group("context"), Group("", 10.0)),
    warmup=1000 / 60_000,
    warmup_shape="exponential",
    warmup_start=1e-5 / 0.01,
)

# PaddlePaddle/PaddleSeg, configs/pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale1.0_160k.yml: four GPUs
# with 4 frames each, OHEM 0.7 with at least 130000 pixels per GPU on all logits.
PP_LITESEG = replace(
    PLAIN,
    augmentation=crops(512, 1024, (0.5, 2.0), jitter=0.5),
    loss=Loss("ohem", aux_weight=1.0, ohem_share=0, ohem_min_kept=130_000 // 4),
    epochs=epochs(160_000, 16),
    batch=16,
    rate=0.005,
    warmup=1000 / 160_000,
)

# lxtGH/SFSegNets, scripts/cityscacpes/train_cityscapes_sfnet_res18.sh: eight GPUs with 2 frames each, OHEM 0.7
# with at least 10000 pixels per GPU, power 1. Its class-uniform sampling is worth 0.6 mIoU (README).
SFNET = replace(
    PLAIN,
    augmentation=crops(1024, 1024, (0.5, 2.0), jitter=0.25),
    loss=Loss("ohem", ohem_share=0, ohem_min_kept=10_000 // 2),
    epochs=300,
    batch=16,
    weight_decay=1e-4,
    power=1.0,
)

# NVlabs/SegFormer, local_configs/segformer/B0/segformer.b0.1024x1024.city.160k.py: AdamW, the head ten times as
# fast, linear warm-up in 1500 steps, power 1. It decays biases too, though not norms.
SEGFORMER = replace(
    PLAIN,
    augmentation=crops(1024, 1024, (0.5, 2.0), jitter=0.25),
    epochs=epochs(160_000, 8),
    optimizer="adamw",
    rate=6e-5,
    weight_decay=0.01,
    decayed="weights",
    groups=(Group("head", 10.0),),
    warmup=1500 / 160_000,
    power=1.0,
)

FAST: dict[str, Recipe] = {
    "bisenet_r18": BISENET_R18,
    "fastscnn": FASTSCNN,
    "bisenetv2": BISENETV2,
    "icnet": FAST_SEG,
    # Its second auxiliary head has plain cross-entropy in the source.
    "dfanet": replace(FAST_SEG, augmentation=crops(1024, 1024, (0.7, 2.1)), epochs=epochs(60_000, 16)),
    "swiftnet_r18": SWIFTNET,
    "enet": ENET,
    "espnet": ESPNET,
    "dfseg1": FAST_SEG,
    "dfseg2": FAST_SEG,
    # No public code, and no schedule that we know; boundaries are learned as DFN's are.
    "msfnet": replace(
        FAST_SEG, augmentation=crops(1024, 1024, (0.7, 2.1)), loss=replace(FAST_SEG.loss, edges="border")
    ),
    "ddrnet23_slim": DDRNET,
    "ddrnet23": DDRNET,
    "pidnet_s": PIDNET,
    "stdc1": STDC,
    "stdc2": STDC,
    "pp_liteseg_t": PP_LITESEG,
    "sfnet_r18": SFNET,
    # train_cityscapes_sfnet_res18_v2_lite_1000e.sh: at least 100000 pixels per GPU, auxiliary logits at 1.
    "sfnet_lite_r18": replace(
        SFNET, loss=Loss("ohem", aux_weight=1.0, ohem_share=0, ohem_min_kept=100_000 // 2), epochs=1000
    ),
    "segformer_b0": SEGFORMER,
}
"""By key of MODELS."""
