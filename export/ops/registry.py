"""The operators there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .criss_cross_attention import CRISS_CROSS_ATTENTION
from .frame_preprocess import FRAME_PREPROCESS
from .max_unpool import MAX_POOL_INDICES, MAX_UNPOOL
from .modulated_deform_conv import MODULATED_DEFORM_CONV
from .non_local_attention import NON_LOCAL_ATTENTION
from .op import Op
from .psa_mask import PSA_COLLECT, PSA_DISTRIBUTE, PSA_MASK
from .scale_adaptive_conv import SCALE_ADAPTIVE_CONV
from .upsample_argmax import UPSAMPLE_ARGMAX

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        CRISS_CROSS_ATTENTION,
        FRAME_PREPROCESS,
        MAX_POOL_INDICES,
        MAX_UNPOOL,
        MODULATED_DEFORM_CONV,
        NON_LOCAL_ATTENTION,
        PSA_COLLECT,
        PSA_DISTRIBUTE,
        PSA_MASK,
        SCALE_ADAPTIVE_CONV,
        UPSAMPLE_ARGMAX,
    )
}
"""By ONNX op type."""


def translation() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How torch's exporter writes each of them, for `torch.onnx.export(custom_translation_table=...)`."""
    return {op.torch._opoverload: op.translation() for op in OPS.values()}


def flop_formulas() -> dict[Callable[..., Any], Callable[..., int]]:
    """What a call of each of them costs, for `torch.utils.flop_counter.FlopCounterMode(custom_mapping=...)`.

    They are not registered for every counter: that module imports Triton, which decides in that moment whether it
    interprets kernels.
    """
    return {op.torch._opoverload.overloadpacket: op.count_flops for op in OPS.values()}
