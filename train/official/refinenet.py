"""DrSleep/refinenet-pytorch: `models/resnet.py`, saved as a bare state dict.

Its released weights are those of PASCAL VOC; whoever trains it on Cityscapes gets the same names. Its notebook
upsamples the logits with OpenCV, by cubic interpolation; here it is linear between the same places.
"""

import dataclasses

from roadseg.runtime.labels import VOC

from .source import Source

BLOCKS = ("deepest", "finer.0", "finer.1", "finer.2")

CITYSCAPES = Source(
    "DrSleep/refinenet-pytorch@65541db",
    "refinenet_r101",
    align_corners=False,
    rename=(
        (r"^(conv1|bn1|layer[1-4])\.", r"backbone.\1."),
        *((rf"^p_ims1d2_outl{i}_dimred\.", f"{block}.reduce.") for i, block in enumerate(BLOCKS, 1)),
        *((rf"^adapt_stage{i}_b\.0\.", f"{block}.adapt.") for i, block in enumerate(BLOCKS, 1)),
        *((rf"^adapt_stage{i}_b2_joint_varout_dimred\.", f"{block}.own.") for i, block in enumerate(BLOCKS, 1)),
        *((rf"^mflow_conv_g{i}_b3_joint_varout_dimred\.", f"{BLOCKS[i]}.below.") for i in (1, 2, 3)),
        *((rf"^mflow_conv_g{i}_pool\.0\.", f"{block}.pool.convs.") for i, block in enumerate(BLOCKS, 1)),
        *((rf"^mflow_conv_g{i}_b\.0\.", f"{block}.smooth.") for i, block in enumerate(BLOCKS, 1)),
        *((rf"\.{i + 1}_outvar_dimred\.", f".{i}.") for i in range(4)),
        *((rf"\.{i + 1}_conv\.", f".{i}.conv1.") for i in range(3)),
        *((rf"\.{i + 1}_conv_relu_varout_dimred\.", f".{i}.conv2.") for i in range(3)),
        (r"^clf_conv\.", "classify."),
    ),
)

SOURCES = (CITYSCAPES, dataclasses.replace(CITYSCAPES, classes=VOC.classes))
