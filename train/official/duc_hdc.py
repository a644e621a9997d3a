"""TuSimple/TuSimple-DUC: `tusimple_duc/networks`, which is MXNet, saved by `mx.model.save_checkpoint`.

Its norms have `fix_gamma=False`: gamma is what the file says. The authors upsample what comes out of the softmax;
here it is the logits, as everywhere.
"""

from ..models.resnet import BLOCKS
from .source import Preprocessing, Source

SOURCES = (
    Source(
        "TuSimple/TuSimple-DUC@83bfc77",
        "duc_hdc_r101",
        Preprocessing.of_bytes("rgb", mean=(122.675, 116.669, 104.008)),
        align_corners=False,
        rename=(
            (r"^(arg|aux):", ""),
            (r"^conv1_1_3x3_s2/bn_", "backbone.conv1.1."),
            (r"^conv1_1_3x3_s2_", "backbone.conv1.0."),
            (r"^conv1_2_3x3/bn_", "backbone.conv1.4."),
            (r"^conv1_2_3x3_", "backbone.conv1.3."),
            (r"^conv1_3_3x3/bn_", "backbone.bn1."),
            (r"^conv1_3_3x3_", "backbone.conv1.6."),
            *(
                (rf"^conv{stage + 1}_{block + 1}_", f"backbone.layer{stage}.{block}.")
                for stage, blocks in enumerate(BLOCKS[101], 1)
                for block in range(blocks)
            ),
            (r"\.1x1_reduce/bn_", ".bn1."),
            (r"\.1x1_reduce_", ".conv1."),
            (r"\.3x3/bn_", ".bn2."),
            (r"\.3x3_", ".conv2."),
            (r"\.1x1_increase/bn_", ".bn3."),
            (r"\.1x1_increase_", ".conv3."),
            (r"\.1x1_proj/bn_", ".downsample.1."),
            (r"\.1x1_proj_", ".downsample.0."),
            (r"\.gamma$", ".weight"),
            (r"\.beta$", ".bias"),
            (r"\.moving_(mean|var)$", r".running_\1"),
            (r"^fc1_cityscapes_c(\d)_", r"heads.\1."),
        ),
    ),
)
