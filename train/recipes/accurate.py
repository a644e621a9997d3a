"""Recipes of the networks that are made for accuracy.

Each names its source. "per GPU" in a comment is the source's; here a minimum of hard pixels is per frame.
Class-uniform sampling (SFSegNets, DecoupleSegNets) is left out: it needs the place of every class in the data set
beforehand. Crops of 8k + 1 are 8k for networks whose `sizes` are that: their maps are the same, as pools round up.
"""

from __future__ import annotations

from dataclasses import replace

from ..losses import Loss
from ..recipe import Group, Recipe
from .base import PLAIN, crops, epochs

# lxtGH/GALD-DGCNet, exp/train_gald_r_101_city_finetrain.sh: 8 GPUs with a frame each, OHEM 0.7 with at least
# 100000 pixels per GPU on the main logits, plain cross-entropy at 0.4 on the auxiliary ones, scales 0.7 to 2.1.
LXTGH = replace(
    PLAIN,
    augmentation=crops(768, 768, (0.7, 2.1)),
    loss=Loss("ohem", aux_kind="ce", ohem_share=0, ohem_min_kept=100_000),
    epochs=epochs(50_000, 8),
)
# exp/train_dualseg_r_{50,101}_city_finetrain.sh of the same.
DGCNET = replace(LXTGH, augmentation=crops(832, 832, (0.7, 2.1)))

# speedinghzl/CCNet, run_local.sh and README: 60000 steps of 8, crop 769, weight decay 5e-4, auxiliary weight 0.4.
CCNET = replace(PLAIN, augmentation=crops(768, 768, (0.7, 2.1)), epochs=epochs(60_000, 8))

# openseg-group/OCNet.pytorch, run_resnet101_{base,asp}_oc.sh: as CCNet, with fixed class weights and 40000 steps.
OCNET = replace(CCNET, class_weights="cityscapes", epochs=epochs(40_000, 8))

# hszhao/semseg, config/cityscapes/cityscapes_pspnet{50,101}.yaml and tool/train.py: what is not backbone learns
# ten times as fast. Rotation by 10 degrees and blur are left out.
SEMSEG = replace(
    PLAIN,
    augmentation=crops(713, 713, (0.5, 2.0)),
    epochs=200,
    batch=16,
    weight_decay=1e-4,
    groups=(Group("backbone"), Group("", 10.0)),
)

# lxtGH/DecoupleSegNets, scripts/train/train_cityscapes_ResNet50_deeplab.sh and train.py's defaults: 8 GPUs with a
# frame each, OHEM 0.7 with at least 10000 pixels per GPU, power 1, weight decay 1e-4.
DECOUPLE = replace(
    PLAIN,
    augmentation=crops(832, 832, (0.5, 2.0), jitter=0.25),
    loss=Loss("ohem", ohem_share=0, ohem_min_kept=10_000),
    epochs=80,
    weight_decay=1e-4,
    power=1.0,
)

# junfu1115/DANet, README: --base-size 1024 --crop-size 768 --epochs 240 --batch-size 8 --lr 0.003; all three
# logits weigh 1, and the head learns ten times as fast (Encoding's scheduler).
DANET = replace(
    PLAIN,
    augmentation=crops(768, 768, (0.5, 2.0)),
    loss=Loss(aux_weight=1.0),
    epochs=240,
    rate=0.003,
    weight_decay=1e-4,
    groups=(Group("backbone"), Group("", 10.0)),
)

# XiaLiPKU/EMANet, settings.py, has VOC alone: SGD 9e-3, batch 16, 30000 steps, only convolutions decayed. The
# crop and OHEM on Cityscapes are those of lxtGH/SFSegNets, whose EMANet that is.
EMANET = replace(
    DECOUPLE, epochs=epochs(30_000, 16), batch=16, rate=9e-3, weight_decay=1e-4, decayed="weights", power=0.9
)

# ycszen/TorchSeg, model/bisenet/cityscapes.bisenet.{R101,X39}: 80 epochs of 1000 steps, convolutions decayed; all
# but the context path learns ten times as fast.
TORCHSEG = replace(
    PLAIN,
    augmentation=crops(1024, 1024, (0.75, 2.0)),
    loss=Loss("ohem", aux_weight=1.0),
    epochs=epochs(80 * 1000, 16),
    batch=16,
    decayed="weights",
    groups=(Group("context_path"), Group("", 10.0)),
)

# ycszen/TorchSeg, model/dfn/cityscapes.dfn.R101_v1c: OHEM with at least 100000 pixels per GPU of 4 frames on all
# four logits, border branches at 0.1.
DFN = replace(
    TORCHSEG,
    augmentation=crops(800, 800, (0.5, 2.0)),
    loss=Loss("ohem", aux_weight=1.0, ohem_share=0, ohem_min_kept=100_000 // 4, edges="border", edge_weight=0.1),
    rate=7e-4,
    weight_decay=1e-4,
    groups=(Group("backbone"), Group("", 10.0)),
)

# twke18/Adaptive_Affinity_Fields, bashscripts/cityscapes/train_pspnet_aaf_mgpu.sh and
# pyscripts/train/train_aaf.py: weights decayed alone, the classifier ten times as fast; here all but the backbone
# is, as in semseg. Its crop of 720 is 721, as PSPNet here wants.
AAF = replace(
    SEMSEG,
    augmentation=crops(721, 721, (0.5, 2.0)),
    loss=Loss(affinity=1.0),
    epochs=epochs(90_000, 8),
    batch=8,
    rate=1e-3,
    weight_decay=5e-4,
    decayed="weights",
)

# TuSimple/TuSimple-DUC, configs/train/train_cityscapes.cfg fine-tunes: 1e-4, halved every 5 of 50 epochs, scales
# 0.5 to 1.5. Its batch of one frame goes with fixed batch norms; 8 is ours.
DUC_HDC = replace(
    PLAIN,
    augmentation=crops(800, 800, (0.5, 1.5)),
    epochs=50,
    rate=1e-4,
    weight_decay=5e-5,
    schedule="step",
    drop=0.5,
    drop_every=5 / 50,
)

# The paper (CVPR 2018, section 4), from memory: Adam 3e-4, crop 512, batch 8, 80 epochs, weight decay 1e-5, poly
# 0.9.
DENSEASPP = replace(
    PLAIN,
    augmentation=crops(512, 512, (0.5, 2.0)),
    epochs=80,
    optimizer="adam",
    rate=3e-4,
    weight_decay=1e-5,
)

# The paper's script is MATLAB with drops by hand from 5e-4; its crops and length are not known to us. The rate is
# the paper's, the rest PSPNet's.
REFINENET = replace(SEMSEG, rate=5e-4, groups=())

# No public code, and no schedule that we know: PSPNet's, with crops for maps of H/8.
UNKNOWN = replace(SEMSEG, augmentation=crops(768, 768, (0.5, 2.0)))

ACCURATE: dict[str, Recipe] = {
    "deeplabv3_r101": CCNET,  # its DeepLabV3 is trained the same way (networks/deeplabv3.py)
    "deeplabv3plus_r50": DECOUPLE,
    "deeplabv3plus_r101": DECOUPLE,
    "pspnet_r50": SEMSEG,
    "pspnet_r101": SEMSEG,
    "danet_r50": DANET,
    "danet_r101": DANET,
    "glore_r50": LXTGH,  # the authors' Cityscapes code is not public; the head is ours, and so is this choice
    "glore_r101": LXTGH,
    "emanet_r101": EMANET,
    "galdnet_r50": LXTGH,
    "galdnet_r101": LXTGH,
    # The paper (arXiv 1904.01803), from memory: crop 864, batch 8, 0.01.
    "gffnet_r101": replace(LXTGH, augmentation=crops(864, 864, (0.7, 2.1))),
    # scripts/train/train_cityscapes_W38_decouple.sh: two frames per GPU, crop 896, 0.005, 175 epochs.
    "gffnet_wr38": replace(
        DECOUPLE, augmentation=crops(896, 896, (0.5, 2.0), jitter=0.25), epochs=175, batch=16, rate=0.005
    ),
    "dgcnet_r50": DGCNET,
    "dgcnet_r101": replace(DGCNET, epochs=epochs(60_000, 8)),
    "refinenet_r101": REFINENET,
    "sac_r101": UNKNOWN,
    "duc_hdc_r101": DUC_HDC,
    "aaf_r101": AAF,
    "bisenet_r101": TORCHSEG,
    "bisenet_x39": TORCHSEG,
    # cityscapes_psanet101.yaml: the crop is 705, which 16k + 1 asks for.
    "psanet_r101": replace(SEMSEG, augmentation=crops(705, 705, (0.5, 2.0))),
    "dfn_r101": DFN,
    "dsspn_r101": UNKNOWN,
    "denseaspp121": DENSEASPP,
    "denseaspp161": DENSEASPP,
    "ocnet_base_r101": OCNET,
    "ocnet_pyramid_r101": OCNET,
    "ocnet_asp_r101": OCNET,
    "ccnet_r101": CCNET,
}
"""By key of MODELS."""
