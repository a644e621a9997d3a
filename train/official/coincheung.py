"""CoinCheung/BiSeNet: `lib/models/`, saved by `tools/train_amp.py` as a bare state dict."""

from .source import Preprocessing, Source

CITYSCAPES_STATISTICS = Preprocessing(mean=(0.3257, 0.3690, 0.3223), std=(0.2112, 0.2148, 0.2115))
"""lib/data/cityscapes_cv2.py. Their TensorRT demo takes ImageNet's, which the weights were not trained with."""

SOURCES = (
    Source(
        "CoinCheung/BiSeNet@fdcfdc3",
        "bisenet_r18@coincheung",
        CITYSCAPES_STATISTICS,
        align_corners=False,
        rename=(
            (r"^cp\.resnet\.", "context_path."),
            (r"^cp\.conv_avg\.", "global_context."),
            (r"^cp\.arm32\.", "arms.0."),
            (r"^cp\.arm16\.", "arms.1."),
            (r"^(arms\.\d)\.conv\.", r"\1.conv_3x3."),
            (r"\.conv_atten\.", ".channel_attention.0."),
            (r"\.bn_atten\.", ".channel_attention.1."),
            (r"^cp\.conv_head32\.", "refines.0."),
            (r"^cp\.conv_head16\.", "refines.1."),
            (r"^sp\.conv1\.", "spatial_path.conv_7x7."),
            (r"^sp\.conv2\.", "spatial_path.conv_3x3_1."),
            (r"^sp\.conv3\.", "spatial_path.conv_3x3_2."),
            (r"^sp\.conv_out\.", "spatial_path.conv_1x1."),
            (r"^ffm\.convblk\.", "ffm.conv_1x1."),
            (r"^ffm\.conv\.", "ffm.channel_attention.0."),
            (r"^ffm\.bn\.", "ffm.channel_attention.1."),
            (r"^conv_out\.conv_out\.", "main_head.conv_1x1."),
            (r"^conv_out\.conv\.", "main_head.conv_3x3."),
            (r"\.conv\.weight$", ".conv.0.weight"),
            (r"\.bn\.", ".conv.1."),
        ),
        drop={r"conv_out(16|32)\.": "auxiliary head, for training only"},
    ),
    Source(
        "CoinCheung/BiSeNet@6b4b67a",
        "bisenetv2",
        CITYSCAPES_STATISTICS,
        align_corners=False,
        rename=(
            *((rf"^detail\.S{i + 1}\.", f"detail.{i}.") for i in range(3)),
            (r"^segment\.S1S2\.", "stem."),
            (r"^segment\.S5_5\.bn\.", "context.norm."),
            (r"^segment\.S5_5\.conv_gap\.", "context.embed."),
            (r"^segment\.S5_5\.conv_last\.", "context.out."),
            (r"^segment\.S(\d)(_4)?\.(\d)\.conv1\.", r"stage\1.\3.gather."),
            (r"^segment\.S(\d)(_4)?\.(\d)\.dwconv1?\.", r"stage\1.\3.expand.0."),
            (r"^segment\.S(\d)(_4)?\.(\d)\.dwconv2\.", r"stage\1.\3.expand.1."),
            (r"^segment\.S(\d)(_4)?\.(\d)\.conv2\.", r"stage\1.\3.project."),
            (r"^segment\.S(\d)(_4)?\.(\d)\.shortcut\.", r"stage\1.\3.skip."),
            (r"^bga\.left1\.", "aggregation.detail_here."),
            (r"^bga\.left2\.", "aggregation.detail_down."),
            (r"^bga\.right1\.", "aggregation.semantics_up."),
            (r"^bga\.right2\.", "aggregation.semantics_here."),
            (r"^bga\.conv\.", "aggregation.out."),
            (r"^head\.conv_out\.1\.", "head.4."),
            (r"\.conv\.weight$", ".0.weight"),
            (r"\.bn\.", ".1."),
            (r"^head\.conv\.", "head."),
        ),
        drop={r"aux\d": "auxiliary head, for training only"},
    ),
)
