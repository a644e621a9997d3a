"""ycszen/TorchSeg (now yu-changqian/TorchSeg): `model/{bisenet,dfn}/cityscapes.*/network.py`.

Saved by `furnace/engine/engine.py` as `{"model", "optimizer", "epoch", "iteration"}`.
"""

import dataclasses

from .source import Source

CONV_BN_RELU = ((r"\.conv\.weight$", ".conv.0.weight"), (r"\.bn\.", ".conv.1."))
"""Of its `ConvBnRelu`, wherever ours is a ConvBNReLU."""

BISENET_R18 = Source(
    "ycszen/TorchSeg@99ab13d",
    "bisenet_r18",
    rename=(
        (r"^global_context\.1\.", "global_context."),
        (r"^(arms\.\d\.channel_attention)\.1\.conv\.", r"\1.0."),
        (r"^(arms\.\d\.channel_attention)\.1\.bn\.", r"\1.1."),
        (r"^(ffm\.channel_attention)\.1\.conv\.", r"\1.0."),
        (r"^(ffm\.channel_attention)\.2\.conv\.", r"\1.2."),
        (r"^heads\.2\.", "main_head."),
        *CONV_BN_RELU,
    ),
    drop={r"heads\.[01]\.": "auxiliary head, for training only"},
)

XCEPTION = (
    (r"^context_path\.conv1\.conv\.", "context_path.stem.0."),
    (r"^context_path\.conv1\.bn\.", "context_path.stem.1."),
    (r"^(context_path\..*)\.proj\.", r"\1.skip."),
    (r"^(context_path\..*)\.residual_branch\.", r"\1.residual."),
    (r"^(context_path\..*)\.conv1\.", r"\1.0."),
    (r"^(context_path\..*)\.point_wise_cbr\.conv\.", r"\1.1."),
    (r"^(context_path\..*)\.point_wise_cbr\.bn\.", r"\1.2."),
)

BISENET_X39 = dataclasses.replace(
    BISENET_R18,
    repository="ycszen/TorchSeg@dd97e7e",
    net="bisenet_x39",
    rename=(*XCEPTION, *BISENET_R18.rename),
)

DFN = Source(
    "ycszen/TorchSeg@dd97e7e",
    "dfn_r101",
    rename=(
        (r"^global_context\.1\.", "global_context."),
        (r"^smooth_pre_rrbs\.(\d)\.", r"levels.\1.before."),
        (r"^smooth_aft_rrbs\.(\d)\.", r"levels.\1.after."),
        (r"^cabs\.(\d)\.channel_attention\.fc\.", r"levels.\1.attention.weigh."),
        (r"^smooth_heads\.3\.rrb\.", "main_head.0."),
        (r"^smooth_heads\.3\.conv\.", "main_head.1."),
        (r"\.conv_1x1\.", ".reduce."),
        (r"\.cbr\.conv\.", ".refine.0."),
        (r"\.cbr\.bn\.", ".refine.1."),
        (r"\.conv_refine\.", ".refine.3."),
        *CONV_BN_RELU,
    ),
    drop={
        r"smooth_heads\.[0-2]\.": "auxiliary head, for training only",
        r"border_": "branch of the borders, for training only",
    },
)

SOURCES = (
    BISENET_R18,
    dataclasses.replace(BISENET_R18, repository="ycszen/TorchSeg@49aadb6", net="bisenet_r101"),
    BISENET_X39,
    DFN,
)
