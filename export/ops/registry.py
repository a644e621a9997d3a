"""The operators there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .frame_preprocess import FRAME_PREPROCESS
from .max_unpool import MAX_POOL_INDICES, MAX_UNPOOL
from .op import Op
from .psa_mask import PSA_COLLECT, PSA_DISTRIBUTE, PSA_MASK
from .upsample_argmax import UPSAMPLE_ARGMAX

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        FRAME_PREPROCESS,
        MAX_POOL_INDICES,
        MAX_UNPOOL,
        PSA_COLLECT,
        PSA_DISTRIBUTE,
        PSA_MASK,
        UPSAMPLE_ARGMAX,
    )
}
"""By ONNX op type."""


def translation() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How torch's exporter writes each of them, for `torch.onnx.export(custom_translation_table=...)`."""
    return {op.torch._opoverload: op.translation() for op in OPS.values()}
