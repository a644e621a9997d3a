"""INT8 as it rounds, in PyTorch, with gradients.

Values are those that Q/DQ nodes give in ONNX Runtime: divided by the scale, rounded half to even, cut off at -128
and 127, multiplied again; weights as `quantize_weights` rounds them. Gradients go straight through the rounding
where nothing was cut off. A scale's gradient is that of learned step size quantisation (Esser et al., ICLR 2020,
arXiv 1902.08153, equation 3); what is learned is its logarithm, as Jain et al. do (arXiv 1903.08066), so that it
stays positive and a step changes each tensor's scale by as large a part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .cache import INT8_MAX, Ranges
from .placement import Placement

INT8_MIN = -128
"""Of activations, as QuantizeLinear has it; weights end at -127."""


class Int8Rounding(nn.Module):
    """Rounds what a placement says, by scales that can be learned."""

    def __init__(self, placement: Placement, ranges: Ranges) -> None:
        """Begin with the scales of `ranges`.

        Raises:
            CalibrationError: if a tensor has no range.
        """
        super().__init__()
        self.layers = placement.int8_outputs
        shared = {name: min(group) for group in placement.groups for name in group}
        owners = [shared.get(name, name) for name in placement.activations]
        order = list(dict.fromkeys(owners))
        self.position = {
            name: order.index(owner) for name, owner in zip(placement.activations, owners, strict=True)
        }
        """Of a tensor's scale; tensors that are concatenated have one scale."""
        self.calibrator = ranges.calibrator
        self.start = torch.tensor(np.array([ranges.scale(name) for name in order]))
        self.shift = nn.Parameter(torch.zeros(len(order)))
        """Natural logarithm of each scale over that of the ranges."""

    def scales(self) -> Tensor:
        """One for each tensor, or tensors that share it, float32."""
        return self.start * self.shift.exp()

    def ranges(self) -> Ranges:
        """The scales as they are now, for Q/DQ nodes."""
        scales = self.scales().detach().numpy().astype(np.float64)
        amax = {name: float(scales[position] * INT8_MAX) for name, position in self.position.items()}
        return Ranges(amax, self.calibrator)

    def activation(self, name: str, values: Tensor) -> Tensor:
        """A tensor as those that read it get it."""
        position = self.position.get(name)
        return values if position is None else fake_quantize(values, self.scales()[position])

    def weights(self, output: str, name: str, values: Tensor) -> Tensor:
        """A factor of the layer that makes `output`, rounded if it is its weights; no largest value is cut off."""
        layer = self.layers.get(output)
        if layer is None or layer.weights != name:
            return values
        return values + (round_weights(values, layer.axis) - values).detach()


def round_weights(weights: Tensor, axis: int) -> Tensor:
    """Weights on the grid of `quantize_weights`, without gradients."""
    exact = weights.detach()
    others = [i for i in range(exact.ndim) if i != axis]
    largest = exact.abs().amax(others, keepdim=True)
    scales = torch.where(largest > 0, largest / INT8_MAX, 1.0)
    return (exact / scales).round().clamp(-INT8_MAX, INT8_MAX) * scales


def fake_quantize(values: Tensor, scale: Tensor) -> Tensor:
    """Values on the grid of a scale, with gradients for both."""
    rounded: Tensor = _FakeQuantize.apply(values, scale)  # type: ignore[no-untyped-call]
    return rounded


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(values, scale)
        return torch.div(values, scale).round_().clamp_(INT8_MIN, INT8_MAX).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values, scale = ctx.saved_tensors
        steps = values / scale
        rounded = steps.round().clamp_(INT8_MIN, INT8_MAX)
        inside = (steps >= INT8_MIN) & (steps <= INT8_MAX)
        by_scale = torch.where(inside, rounded - steps, rounded)
        return gradient * inside, torch.sum(gradient * by_scale)
