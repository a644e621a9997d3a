"""huaifeng1993/DFANet: `model/dfanet.py`, saved by `train.py` as {"epoch", "model_state_dict", ...}.

Twenty classes: the last one is of the pixels that Cityscapes leaves unlabelled. No file of such weights is public.
"""

from roadseg.runtime.labels import CITYSCAPES, UNLABELLED

from .source import Preprocessing, Source, as_convolutions

SOURCES = (
    Source(
        "huaifeng1993/DFANet@3444e2f",
        "dfanet@huaifeng",
        # Frames as OpenCV reads them, by statistics in the order of RGB.
        Preprocessing("bgr"),
        classes=(*CITYSCAPES.classes, UNLABELLED),
        rename=(
            (r"^decoder\.conv([012])\.", r"reduce_second.\1."),
            (r"^decoder\.conv3\.", "reduce_first_context."),
            (r"^decoder\.conv5\.", "reduce_later_contexts."),
            (r"^decoder\.conv_add\.", "fuse."),
            (r"^decoder\.conv_cls\.", "classifier."),
            (r"^encoder\.conv1\.", "stem."),
            (r"^encoder\.branch(\d)\.enc(\d)\.build\.", r"passes.\1.encode\2."),
            *(
                (rf"\.conv{i + 1}\.{theirs}\.", f".convolutions.{4 * i + ours}.")
                for i in range(3)
                for ours, theirs in enumerate((r"0\.conv1", r"0\.pointwise", "1"))
            ),
            (r"^encoder\.branch(\d)\.atten\.fc\.0\.", r"passes.\1.attention.embed."),
            (r"^encoder\.branch(\d)\.atten\.fc\.2\.", r"passes.\1.attention.weigh."),
        ),
        drop={r"decoder\.conv4\.": "never called: conv5 is called twice"},
        convert=as_convolutions(r"passes\.\d\.attention\.(embed|weigh)\.weight"),
    ),
)
