"""Networks that roadseg has never seen."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.export.ops import MAX_POOL_INDICES, MAX_UNPOOL

CLASSES = ("road", "sidewalk", "sky", "car", "person")


class Mongrel(nn.Module):
    """Most of what road-scene networks use beyond a convolution, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.Hardswish())
        self.context = nn.Conv2d(16, 16, 1)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Sigmoid()
        )
        self.scene = nn.Conv2d(16, 8, 1)
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(24, 8, 4, 2, 1, groups=2, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1)
        )
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, len(CLASSES), 1)
        randomise(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        high = self.stem(x)  # (N, 8, H/2, W/2)
        low = self.down(high)  # (N, 16, H/4, W/4)
        size = low.shape[-2:]
        grid = self.context(F.adaptive_avg_pool2d(low, (5, 3)))
        low = low + F.interpolate(grid, size, mode="bilinear", align_corners=False)
        low = low * self.squeeze(low)[:, :, None, None]
        scene = F.interpolate(self.scene(F.adaptive_avg_pool2d(low, 1)), size, mode="bilinear")
        grown = self.grow(torch.cat([low, scene], 1))  # (N, 8, H/2, W/2)
        logits = self.head(F.relu(self.norm(torch.cat([grown, high], 1))))
        return {"aux": grown, "out": logits}


class Answers(nn.Module):
    """One convolution, and `answer` of what comes out of it."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(CLASSES), 3, padding=1)
        self.answer = answer
        randomise(self)

    def forward(self, x: Tensor):
        return self.answer(self.conv(x))


class Undone(nn.Module):
    """Pools what a convolution makes of the image, and puts it back where it was."""

    windows = (2, 2, 0)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.mix = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, len(CLASSES), 3, padding=1)
        randomise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.mix(F.max_pool2d(x, *self.windows))
        size = [*x.shape[2:]]
        return self.head(MAX_UNPOOL(pooled, MAX_POOL_INDICES(x, *self.windows), size, *self.windows))


def randomise(net: nn.Module) -> None:
    """Seeded weights and batch norm statistics, none of them 0 or 1 where a mistake would not show."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
            if tensor.ndim > 1:
                tensor.sub_(1).mul_(2 / tensor[0].numel() ** 0.5)
            elif name.endswith(("bias", "mean")):
                tensor.sub_(1)
