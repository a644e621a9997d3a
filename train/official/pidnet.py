"""XuJiacong/PIDNet: `models/pidnet.py`, saved by `tools/train.py` within a wrapper of network and losses."""

from .ddrnet import POOLING
from .source import Source

SOURCES = (
    Source(
        "XuJiacong/PIDNet@4c158cf",
        "pidnet_s",
        align_corners=True,  # the configuration's default; no file of theirs sets it
        rename=(
            (r"^model\.", ""),
            (r"^conv1\.", "stem."),
            (r"^layer3_d\.", "boundary3."),
            (r"^layer([45])_d\.0\.", r"boundary\1."),
            (r"^layer5_\.0\.", "detail5."),
            (r"^layer([34])_\.", r"detail\1."),
            (r"^diff(\d)\.", r"difference\1."),
            (r"^compression(\d)\.", r"guide\1.compression."),
            (r"^pag(\d)\.f_x\.", r"guide\1.embed_detail."),
            (r"^pag(\d)\.f_y\.", r"guide\1.embed_context."),
            (r"^spp\.scale_process\.", "context.process."),
            *POOLING,
            (r"^dfm\.conv_p\.", "fusion.of_detail."),
            (r"^dfm\.conv_i\.", "fusion.of_context."),
            (r"^final_layer\.", "head."),
        ),
        drop={
            r"(model\.)?seghead_[pd]\.": "auxiliary head, for training only",
            r"(sem_|bd_)?loss\.": "class weights of the losses",
        },
    ),
)
