"""MichaelFan01/STDC-Seg: `models/model_stages.py`, saved by `train.py` as a bare state dict."""

import dataclasses

from .source import Source

STDC1 = Source(
    "MichaelFan01/STDC-Seg@59ff37f",
    "stdc1",
    align_corners=True,
    rename=(
        (r"^cp\.", "context."),
        (r"\.conv_list\.0\.", ".reduce."),
        *((rf"\.conv_list\.{i + 1}\.", f".grow.{i}.") for i in range(3)),
        (r"\.avd_layer\.", ".down."),
        (r"\.arm(\d+)\.conv\.", r".attend\1.conv_3x3."),
        (r"\.arm(\d+)\.conv_atten\.", r".attend\1.channel_attention.0."),
        (r"\.arm(\d+)\.bn_atten\.", r".attend\1.channel_attention.1."),
        (r"\.conv_head(\d+)\.", r".refine\1."),
        (r"\.conv_avg\.", ".whole."),
        (r"^ffm\.convblk\.", "fusion.conv_1x1."),
        (r"^ffm\.conv1\.", "fusion.channel_attention.0."),
        (r"^ffm\.conv2\.", "fusion.channel_attention.2."),
        (r"^conv_out\.conv_out\.", "head.3."),
        (r"^conv_out\.conv\.", "head."),
        (r"^(context\.backbone.*|head)\.conv\.weight$", r"\1.0.weight"),
        (r"^(context\.backbone.*|head)\.bn\.", r"\1.1."),
        (r"\.conv\.weight$", ".conv.0.weight"),
        (r"\.bn\.", ".conv.1."),
    ),
    drop={
        r"cp\.backbone\.x\d+\.": "the same tensors as cp.backbone.features, under a second name",
        r"cp\.backbone\.(conv_last|fc|bn|linear)\.": "ImageNet's classifier, which this network does not run",
        r"conv_out(16|32|_sp8)\.": "auxiliary head, for training only",
        r"conv_out_sp(2|4|16)\.": "detail head at a size that no loss looks at",
    },
    # Outside the backbone every norm is an InPlaceABNSync without activation.
    absolute=r"(?!context\.backbone\.).*\.1\.weight",
)

SOURCES = (STDC1, dataclasses.replace(STDC1, net="stdc2"))
"""Both networks have the same names."""
