"""NVlabs/SegFormer: `mmseg/models`, saved by mmcv as {"meta", "state_dict", "optimizer"}.

The mIoU that the authors give is of windows of 1024x1024 every 768 pixels; a whole frame at once differs slightly.
"""

from .source import Preprocessing, Source, as_convolutions

SOURCES = (
    Source(
        "NVlabs/SegFormer@073b02d",
        "segformer_b0",
        Preprocessing.of_bytes("rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        align_corners=False,
        rename=(
            *((rf"^backbone\.patch_embed{i + 1}\.proj\.", f"stages.{i}.embed.conv.") for i in range(4)),
            *((rf"^backbone\.patch_embed{i + 1}\.norm\.", f"stages.{i}.embed.norm.") for i in range(4)),
            *((rf"^backbone\.block{i + 1}\.", f"stages.{i}.blocks.") for i in range(4)),
            *((rf"^backbone\.norm{i + 1}\.", f"stages.{i}.norm.") for i in range(4)),
            (r"\.attn\.q\.", ".attention.query."),
            (r"\.attn\.kv\.", ".attention.key_value."),
            (r"\.attn\.sr\.", ".attention.shrink.conv."),
            (r"\.attn\.norm\.", ".attention.shrink.norm."),
            (r"\.attn\.proj\.", ".attention.out."),
            (r"\.mlp\.fc1\.", ".perceptron.0."),
            (r"\.mlp\.dwconv\.dwconv\.", ".perceptron.1."),
            (r"\.mlp\.fc2\.", ".perceptron.3."),
            *((rf"^decode_head\.linear_c{i + 1}\.proj\.", f"head.embeds.{i}.") for i in range(4)),
            (r"^decode_head\.linear_fuse\.conv\.", "head.fuse.0."),
            (r"^decode_head\.linear_fuse\.bn\.", "head.fuse.1."),
            (r"^decode_head\.linear_pred\.", "head.classifier."),
        ),
        drop={r"decode_head\.conv_seg\.": "built by mmseg's base class, never used"},
        convert=as_convolutions(r"stages\.\d\.blocks\.\d\.perceptron\.[03]\.weight|head\.embeds\.\d\.weight"),
    ),
)
