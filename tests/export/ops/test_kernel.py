import pytest
import torch

from roadseg.export.ops import UPSAMPLE_ARGMAX
from roadseg.export.ops.kernel import answering


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_kernel_may_answer_in_another_type(dtype):
    logits = torch.randn(2, 21, 5, 7, generator=torch.Generator().manual_seed(0))
    args = (logits, [15, 21], False)
    call = answering(UPSAMPLE_ARGMAX.kernel.call_for(*args), dtype)
    assert list(call.signature.values())[6] == {torch.float16: "*fp16", torch.float32: "*fp32"}[dtype]
    assert (call.answer.dtype, call.answer.shape) == (dtype, (2, 15, 21))
    answer = torch.empty(call.answer.shape, dtype=dtype)
    UPSAMPLE_ARGMAX.kernel.jit[call.grid](logits, *call.integers.values(), answer, **call.constants)
    assert torch.equal(answer, UPSAMPLE_ARGMAX.reference(*args).to(dtype))
