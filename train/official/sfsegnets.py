"""lxtGH/SFSegNets: `network/{deeplabv3_plus,icnet,sfnet_resnet}.py`, saved as by DecoupleSegNets."""

import dataclasses

from .decouplesegnets import DEEPLABV3PLUS, STEM
from .fast_seg import CASCADE, CASCADE_AUXILIARY, PYRAMID
from .source import Source

REPOSITORY = "lxtGH/SFSegNets@22c5669"

ALIGNMENT = (
    (r"\.down_h\.", ".reduce_coarse."),
    (r"\.down_l\.", ".reduce_fine."),
    (r"\.flow_make\.", ".flow."),
    (r"\.flow_gate\.0\.", ".gate."),
)
HEAD = ((r"^head\.conv_last\.0\.", "head."), (r"^head\.conv_last\.1\.", "head.3."))

SOURCES = (
    *(dataclasses.replace(source, repository=REPOSITORY) for source in DEEPLABV3PLUS),
    Source(
        REPOSITORY,
        "sfnet_r18",
        rename=(
            *STEM,
            (r"^head\.ppm\.", "context."),
            *PYRAMID,
            (r"^head\.fpn_in\.", "laterals."),
            (r"^head\.fpn_out_align\.", "alignments."),
            (r"^head\.fpn_out\.(\d)\.0\.", r"outputs.\1."),
            *ALIGNMENT,
            *HEAD,
        ),
        drop={r"head\.dsn\.": "auxiliary head, for training only"},
    ),
    Source(
        REPOSITORY,
        "sfnet_lite_r18",
        rename=(
            *STEM,
            (r"^head\.ppm\.", "context."),
            *PYRAMID,
            (r"^head\.fpn_in\.0\.", "fine."),
            (r"^head\.fpn_in\.1\.", "middle."),
            (r"^head\.flow_align_module\.", "alignment."),
            *ALIGNMENT,
            *HEAD,
        ),
        drop={
            r"head\.dsn\.": "auxiliary head that no forward pass runs",
            r"head\.fpn_in\.2\.": "of a level that no forward pass uses",
        },
    ),
    Source(
        REPOSITORY,
        "icnet@sfsegnets",
        rename=(*STEM, (r"^psp_head\.", "context."), *PYRAMID, *CASCADE),
        drop=CASCADE_AUXILIARY,
    ),
)
