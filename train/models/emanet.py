"""EMANet (Li et al., ICCV 2019, arXiv 1907.13426) on ResNet-101, after XiaLiPKU/EMANet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture, Sizes
from .layers import Conv2d, conv_bn, conv_bn_relu, fcn_head
from .resnet import ResNet


class EMANet(nn.Module):
    """Features at 1/8 rebuilt from a few bases, which expectation-maximisation fits to every image.

    Takes normalised `(N, 3, H, W)` and returns logits `(N, classes, H/8, W/8)`; it has no auxiliary heads.
    """

    align_corners = True
    """How the logits are to be upsampled to the frame."""

    def __init__(self, classes: int = 19, aux: bool = True) -> None:  # noqa: ARG002 (as every network is made)
        super().__init__()
        dilations = ((1,), (1,), (1, 2), (2, 8, 16))
        self.backbone = ResNet(101, stem="deep", strides=(1, 2, 1, 1), dilations=dilations)
        self.reduce = conv_bn_relu(2048, 512)
        self.attention = EMAttention(512, 64)
        self.head = fcn_head(512, 256, classes)

    def forward(self, x: Tensor) -> Tensor:
        *_, deep = self.backbone(x)  # (N, 2048, H/8, W/8)
        logits: Tensor = self.head(self.attention(self.reduce(deep)))
        return logits


class EMAttention(nn.Module):
    """Three rounds of expectation-maximisation from learned bases, and the map rebuilt from what they became.

    A gradient passes through the last shares alone. The published code stops that one too, so that its `embed`
    stays at its random start.
    """

    rounds = 3
    epsilon = 1e-6
    """Keeps divisors above zero."""
    memory = 0.9
    """Share of the learned bases that a training step keeps."""

    def __init__(self, channels: int, bases: int) -> None:
        super().__init__()
        self.bases: Tensor
        self.register_buffer("bases", F.normalize(torch.randn(1, channels, bases), dim=1))
        self.embed = Conv2d(channels, channels, 1)
        self.project = conv_bn(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.embed(x).flatten(2)  # (N, C, H*W)
        bases = self.bases
        for _ in range(self.rounds):
            shares = torch.softmax(features.transpose(1, 2) @ bases, dim=2)  # (N, H*W, K)
            bases = self.fit(features.detach(), shares.detach())
        if self.training:
            self.learn(bases)
        rebuilt = F.relu((bases @ shares.transpose(1, 2)).reshape(x.shape))
        return F.relu(self.project(rebuilt) + x)

    def fit(self, features: Tensor, shares: Tensor) -> Tensor:
        """Bases of length 1 in the direction of the features' means, weighted by their shares, `(N, C, K)`.

        The weights of a full frame are near FP16's smallest normal number: this needs FP32.
        """
        means = features @ (shares / (shares.sum(dim=1, keepdim=True) + self.epsilon))
        lengths: Tensor = torch.linalg.vector_norm(means, dim=1, keepdim=True)
        return means / (lengths + self.epsilon)

    @torch.no_grad()
    def learn(self, bases: Tensor) -> None:
        """Move the learned bases towards those of this batch; no gradient does."""
        self.bases.lerp_(bases.mean(dim=0, keepdim=True), 1 - self.memory)


NETWORKS = {
    "emanet_r101": Architecture(
        EMANet,
        "Li et al., ICCV 2019, arXiv 1907.13426",
        "81.14 val, single scale (lxtGH/SFSegNets); the authors publish PASCAL VOC alone",
        Sizes(8),
    ),
}
