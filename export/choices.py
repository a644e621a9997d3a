"""PyTorch made to choose as a model did, where rounding alone decided.

An operator that chooses by comparison, such as the one that tells where pooling found its maxima, magnifies
rounding: of two places whose values are nearly equal PyTorch may name one and ONNX Runtime the other, and what is
put there later moves by a pixel. Both are right, so the two are compared with the same choices made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from .ops import OPS, Op

CHOOSING = {name: op for name, op in OPS.items() if op.as_good}
"""By ONNX op type."""


def with_choices(model: bytes) -> bytes:
    """The model with what its operators choose as further outputs; itself where none chooses."""
    if not any(name.encode() in model for name in CHOOSING):  # nothing large is read in vain
        return model
    proto = onnx.load_model_from_string(model)
    choosing = [n for n in proto.graph.node if n.domain == CUSTOM_DOMAIN and n.op_type in CHOOSING]
    proto.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in choosing)
    extended: bytes = proto.SerializeToString()
    return extended


class Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes operators choose as a model did, wherever that is as good as their own choice.

    Where it is not, they keep their own: what the model did wrong then shows in what it answers.
    """

    def __init__(self, choices: Sequence[Tensor], allowed_error: Callable[[float], float]) -> None:
        """Follow `choices`; a map may be off by the `allowed_error` of its largest value."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.choices = choices
        self.allowed_error = allowed_error
        self.made = self.followed = 0

    @property
    def share(self) -> float:
        """Of all choices those in which the model was followed against PyTorch's own, 0 to 1."""
        return self.followed / max(self.made, 1)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute `func`, and let it follow the model if it chooses."""
        answer = func(*args, **(kwargs or {}))
        op = next((op for op in CHOOSING.values() if op.torch._opoverload is func), None)
        return self._follow(op, answer, args) if op else answer

    def _follow(self, op: Op, own: Tensor, args: Sequence[Any]) -> Tensor:
        self.made += own.numel()
        given = [choice for choice in self.choices if choice.shape == own.shape]
        if not (given and op.as_good):
            return own
        # The model's nodes need not stand in the order of PyTorch's calls.
        other = max(given, key=lambda choice: int((choice == own).sum()))
        error = self.allowed_error(float(args[0].abs().max()))
        follows = (other != own) & op.as_good(other, error, *args)
        self.followed += int(follows.sum())
        return torch.where(follows, other, own)
