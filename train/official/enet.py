"""davidtvs/PyTorch-ENet: `models/enet.py`, saved by `utils.py`.

Its network for Cityscapes has twenty classes, the first of which is for unlabelled pixels: they weigh nothing in
its loss. That class stands last here, where no metric counts it.
"""

from roadseg.runtime.labels import CITYSCAPES, UNLABELLED

from .source import Preprocessing, Source, Weights


def unlabelled_last(weights: Weights) -> Weights:
    """The classifier's weights `(16, classes, 3, 3)` with the first class behind the others."""
    return {k: v.roll(-1, dims=1) if k == "classify.weight" else v for k, v in weights.items()}


SOURCES = (
    Source(
        "davidtvs/PyTorch-ENet@7cd31d4",
        "enet",
        Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),  # main.py: ToTensor alone
        align_corners=False,
        classes=(*CITYSCAPES.classes, UNLABELLED),
        rename=(
            (r"^initial_block\.main_branch\.", "stem.conv."),
            (r"^initial_block\.batch_norm\.", "stem.out.0."),
            (r"^initial_block\.out_activation\.", "stem.out.1."),
            (r"^downsample(\d)_0\.", r"down\1."),
            (r"^upsample(\d)_0\.ext_tconv1\.", r"up\1.branch.1.0."),
            (r"^upsample(\d)_0\.ext_tconv1_bnorm\.", r"up\1.branch.1.1."),
            (r"^upsample(\d)_0\.ext_conv2\.", r"up\1.branch.2."),
            (r"^upsample(\d)_0\.main_conv1\.", r"up\1.shortcut."),
            (r"^upsample(\d)_0\.", r"up\1."),
            *((rf"^[a-z]+([124])_{i + 1}\.", rf"stage\1.{i}.") for i in range(8)),
            (r"^[a-z]+3_(\d)\.", r"stage3.\1."),
            (r"^regular5_1\.", "stage5."),
            *((rf"\.ext_conv{i + 1}\.", f".branch.{i}.") for i in range(3)),
            (r"\.out_activation\.", ".out."),
            (r"^transposed_conv\.", "classify."),
        ),
        convert=unlabelled_last,
    ),
)
