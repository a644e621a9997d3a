"""A network and its loss as one module: what is differentiated, and what processes share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roadseg.runtime import ModelSpec
from roadseg.runtime.backends.torch import Normalise

from .losses import KernelWeights, Loss
from .models.outputs import Outputs


class Objective(nn.Module):
    """Frames `(N, H, W, 3)` uint8 and labels `(N, H, W)` int64 to the loss, a scalar."""

    class_weights: Tensor | None

    def __init__(
        self, net: nn.Module, spec: ModelSpec, loss: Loss, class_weights: Tensor | None, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.net = net
        self.normalise = Normalise(spec)
        self.loss = loss
        self.align_corners = spec.align_corners
        self.precision = precision
        self.kernels = KernelWeights(len(spec.classes)) if loss.affinity else None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, frames: Tensor, labels: Tensor, progress: float) -> Tensor:
        """The loss; `progress` is the share of the run that is over."""
        images = self.normalise(frames).contiguous(memory_format=torch.channels_last)
        # The loss itself is always single.
        with torch.autocast(frames.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = self.net(images)
        return self.loss(
            in_single(outputs), labels, self.class_weights, self.align_corners, self.kernels, progress
        )


def precision_on(device: torch.device, precision: str) -> torch.dtype:
    """What a recipe's precision means on a device."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def in_single(outputs: Tensor | list[Tensor] | Outputs) -> list[Tensor] | Outputs:
    """What a network returned in training, in single precision; one tensor becomes a list of one."""
    if isinstance(outputs, Outputs):
        return Outputs(*([x.float() for x in maps] for maps in outputs))
    return [x.float() for x in ([outputs] if isinstance(outputs, Tensor) else outputs)]
