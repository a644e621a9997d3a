"""orsic/swiftnet: `configs/rn18_single_scale.py`, saved by `train.py` as a bare state dict."""

from .source import Preprocessing, Source

SOURCES = (
    Source(
        "orsic/swiftnet@480b5e2",
        "swiftnet_r18",
        # The network normalises itself; the configuration's figures, which its buffers img_mean and img_std hold.
        Preprocessing.of_bytes("rgb", mean=(73.15, 82.90, 72.3), std=(47.67, 48.49, 47.73)),
        align_corners=False,
        rename=(
            (r"^backbone\.spp\.spp\.spp_bn\.", "context.reduce."),
            (r"^backbone\.spp\.spp\.spp_fuse\.", "context.fuse."),
            (r"^backbone\.spp\.spp\.spp(\d)\.", r"context.levels.\1."),
            (r"^backbone\.upsample\.(\d)\.bottleneck\.", r"blends.\1.project."),
            (r"^backbone\.upsample\.(\d)\.blend_conv\.", r"blends.\1.mix."),
            (r"^logits\.", "head."),
            (r"\.norm\.", ".0."),
            (r"\.conv\.", ".2."),
        ),
        drop={r"backbone\.img_(mean|std)$": "normalises the image, which the ModelSpec does"},
    ),
)
