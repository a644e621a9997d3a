"""Evaluation at several scales and mirrored, as papers report it: a backend that averages class probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.runtime import ModelSpec, Segmenter, Size, UsageError
from roadseg.runtime.backends.torch import Normalise, TensorNet

from .checkpoint import load_network
from .models import MODELS
from .models.architecture import Sizes

ANY_SIZE = Sizes(1)
"""For networks from outside, of which nothing is known."""


class MultiScale:
    """Runs a network at several sizes and answers the class with the highest mean probability."""

    def __init__(
        self,
        net: nn.Module,
        spec: ModelSpec,
        scales: Sequence[float],
        flip: bool = False,
        sizes: Sizes = ANY_SIZE,
        device: str = "cpu",
    ) -> None:
        """A backend for frames of the size in `spec`.

        Args:
            net: in evaluation mode.
            spec: its contract.
            scales: factors of the frame's rows and columns.
            flip: whether the mirrored frame is asked too, at every scale.
            sizes: those that the network takes; each scaled size becomes the nearest one.
            device: of PyTorch.

        Raises:
            UsageError: if there is no scale, or one is not positive.
        """
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise UsageError(f"scales are positive numbers, e.g. 0.5,1,1.5, got {tuple(scales)}.")
        listed = ",".join(f"{scale:g}" for scale in scales)
        self.name = f"PyTorch {torch.__version__} {device.upper()}, scales {listed}{', mirrored too' * flip}"
        self.spec = spec
        self.flip = flip
        self.sizes = [sizes.nearest(scaled(spec.size, scale)) for scale in scales]
        self.device = torch.device(device)
        self._normalise = Normalise(spec).to(self.device)
        self._logits = TensorNet(net.eval(), spec).to(self.device)

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map frames `(N, H, W, 3)` uint8 RGB to train ids `(N, H, W)` uint8."""
        self.spec.check_frames(frames)
        with torch.inference_mode():
            images = self._normalise(torch.from_numpy(np.require(frames, requirements=["C", "W"])).to(self.device))
            probabilities = torch.stack([self._at(size, images) for size in self.sizes]).sum(0)
            labels: npt.NDArray[np.uint8] = probabilities.argmax(dim=1).to(torch.uint8).cpu().numpy()
        return labels

    def _at(self, size: Size, images: Tensor) -> Tensor:
        """Probabilities `(N, C, H, W)`, or twice their mean with those of the mirrored frame."""
        probabilities = self._one(size, images)
        return probabilities + self._one(size, images.flip(3)).flip(3) if self.flip else probabilities

    def _one(self, size: Size, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) != size:
            # As cv2.resize does, which TorchSeg and semseg evaluate with.
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        logits: Tensor = self._logits(images)
        return logits.softmax(dim=1)


def open_multiscale(
    path: Path, scales: Sequence[float] = (1.0,), flip: bool = False, size: Size | None = None
) -> Segmenter:
    """A checkpoint, to be evaluated at several scales; on the GPU where there is one.

    Args:
        path: the checkpoint, a `.safetensors` file.
        scales: factors of the frame's rows and columns.
        flip: whether the mirrored frame is asked too.
        size: rows and columns of the frame at scale 1; the checkpoint's own if None.

    Raises:
        UsageError: if the file is no checkpoint, or the scales cannot be meant.
    """
    if path.suffix != ".safetensors":
        raise UsageError(
            f"only a checkpoint can be evaluated at several scales or mirrored: {path} has one size. "
            "Give the checkpoint that it was made from."
        )
    net, checkpoint = load_network(path)
    spec = checkpoint.spec.resized(size) if size else checkpoint.spec
    key = spec.name.partition("@")[0]
    sizes = MODELS[key].sizes if key in MODELS else ANY_SIZE
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Segmenter(spec, MultiScale(net, spec, scales, flip, sizes, device))


def scaled(size: Size, scale: float) -> Size:
    """Rows and columns times `scale`, at least one each."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def parse_scales(text: str) -> tuple[float, ...]:
    """Scales as the command line writes them, e.g. "0.5,1,1.5".

    Raises:
        UsageError: if one is not a number.

    >>> parse_scales("0.5,1")
    (0.5, 1.0)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"scales are numbers with commas between, e.g. 0.5,1,1.5, got {text!r}.") from error
