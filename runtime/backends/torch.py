"""PyTorch: the reference every other backend is measured against, and the module that export traces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SpecError
from ..spec import ModelSpec


class Normalise(nn.Module):
    """Frames `(N, H, W, 3)` uint8 RGB to what the network was trained on, `(N, 3, H, W)` float32."""

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        mean, std = (np.array(values, np.float64).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
        self.reversed = spec.channels == "bgr"
        # (x / 255 - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", torch.from_numpy((1 / (255 * std)).astype(np.float32)), persistent=False)
        self.register_buffer("shift", torch.from_numpy((-mean / std).astype(np.float32)), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        # TensorRT takes uint8 only as an input that is cast at once, before any transpose.
        images = frames.float().permute(0, 3, 1, 2)
        if self.reversed:
            images = torch.cat([images[:, 2:], images[:, 1:2], images[:, :1]], dim=1)
        return images * self.scale + self.shift


class TensorNet(nn.Module):
    """A network with its logits brought to the size of the image.

    Takes normalised `(N, 3, H, W)` float and returns logits `(N, classes, H, W)`.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net = net
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        logits = main_output(self.net(images), self.spec)
        if tuple(logits.shape[2:]) == self.spec.size:
            return logits
        return F.interpolate(logits, self.spec.size, mode="bilinear", align_corners=self.spec.align_corners)


class FrameNet(nn.Module):
    """A network with everything around it: frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8.

    Where two classes tie, the lower one is the answer.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.logits = TensorNet(net, spec)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.normalise(frames))
        return logits.argmax(dim=1).to(torch.uint8)


class TorchBackend:
    """Runs a network in PyTorch, in FP32."""

    def __init__(self, net: nn.Module, spec: ModelSpec, device: str = "cpu") -> None:
        self.name = f"PyTorch {torch.__version__} {device.upper()}"
        self.spec = spec
        self.device = torch.device(device)
        self._net = FrameNet(net.eval(), spec).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8."""
        self.spec.check_frames(frames)
        # PyTorch takes neither views turned round (as of a BGR image) nor arrays that cannot be written.
        images = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
        with torch.inference_mode():
            labels: npt.NDArray[np.uint8] = self._net(images.to(self.device)).cpu().numpy()
        return labels


def main_output(output: object, spec: ModelSpec) -> Tensor:
    """The logits among what a network returns: itself, the first of a list or tuple, or "out" of a dict.

    Raises:
        SpecError: if that is not `(N, classes, h, w)`.
    """
    if isinstance(output, dict):
        output = output.get("out", next(iter(output.values()), None))
    if isinstance(output, (list, tuple)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[1] != len(spec.classes):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise SpecError(
            f"{spec.name} should return logits of shape (N, {len(spec.classes)}, h, w), but returned {what}. "
            "Return them first where there are several outputs, and list as many classes in the spec."
        )
    return output
