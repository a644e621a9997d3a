import pytest
import torch

from roadseg.export.ops import OPS, UPSAMPLE_ARGMAX
from roadseg.export.ops.costs import Cost, body_cost, kernel_cost

ARGS = (torch.empty(1, 3, 2, 4, dtype=torch.float16, device="meta"), [10, 20], False)
LOGITS, FLOAT_LOGITS, FULL, BEST, LABELS = 48, 96, 2400, 1600, 200
"""Bytes: 24 logits in FP16 and FP32, 3 * 200 of these upsampled, labels as int64 and as uint8."""


def test_a_kernel_reads_its_inputs_and_writes_its_answer():
    assert kernel_cost(UPSAMPLE_ARGMAX, ARGS) == Cost(LOGITS + LABELS, LOGITS + LABELS)


def test_a_body_holds_and_moves_what_lies_between():
    assert body_cost(UPSAMPLE_ARGMAX, ARGS) == Cost(
        peak_bytes=FULL + BEST,
        moved_bytes=LOGITS + 2 * FLOAT_LOGITS + 2 * FULL + 2 * BEST + LABELS,
    )


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_kernel_moves_less_than_its_body_at_full_frame(op):
    args = op.full_frame(torch.float16)
    assert kernel_cost(op, args).moved_bytes < body_cost(op, args).moved_bytes
