"""What a float32 model answers about a frame, looked at once or, to be right more often, several times.

Averaged over a frame enlarged, and mirrored, a network's classes are right more often than from the frame as it
is; papers call such figures multi-scale. An exported model has one size, so an enlarged frame is seen in tiles.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from roadseg.runtime import ModelSpec, Size, UsageError
from roadseg.runtime.pixels import fit

from .ranges import feed
from .torchgraph import TorchGraph

LEAST = 1e-7
"""Below which probabilities count as this, so that their logarithms are finite in half precision too."""


@dataclasses.dataclass(frozen=True)
class Views:
    """How a frame is looked at."""

    scales: tuple[float, ...] = (1.0,)
    """By which it is enlarged, each a view of its own."""
    flip: bool = False
    """Whether every view is looked at mirrored from left to right too."""

    def refuse_senseless(self) -> None:
        """Raise UsageError unless there is a view, and all of them can be made of tiles."""
        if not self.scales or not all(1 <= scale < math.inf for scale in self.scales):
            raise UsageError(
                "the model has one size, so that frames can be enlarged for it and not made smaller: scales are "
                f"numbers from 1, e.g. 1,1.5, got {','.join(f'{scale:g}' for scale in self.scales) or 'none'}."
            )


ONCE = Views()
"""As the model does at run time."""


class Teacher:
    """Answers with the mean of a model's class probabilities over the views of a frame."""

    def __init__(self, network: TorchGraph, spec: ModelSpec, batch: int, views: Views) -> None:
        """Take a model over.

        Args:
            network: computes its logits and nothing else; its weights are frozen.
            spec: the model's contract.
            batch: frames that it is given at once.
            views: of a frame.
        """
        self.network = network.requires_grad_(False)
        self.spec = spec
        self.batch = batch
        self.views = views
        self._kept: dict[int, Tensor] = {}

    def answer(self, index: int, frame: npt.NDArray[np.uint8], mirrored: bool) -> Tensor:
        """Logits `(N, classes, h, w)` for a frame of a data set as the model's input, or for it mirrored.

        Answers to several views are kept in half precision, so that they are asked for once, and mirrored with
        their frame.

        Args:
            index: of the frame in its data set.
            frame: `(H, W, 3)` uint8 RGB of any size.
            mirrored: from left to right.
        """
        with torch.no_grad():
            if self.views == ONCE:
                return self._logits(turned(fit(frame, self.spec), mirrored))
            if index not in self._kept:
                self._kept[index] = self._mean(frame).clamp_min(LEAST).log().half()
            kept = self._kept[index].float().expand(self.batch, -1, -1, -1)
            return kept.flip(3) if mirrored else kept

    def _mean(self, frame: npt.NDArray[np.uint8]) -> Tensor:
        """Probabilities `(1, classes, h, w)`."""
        found = [self._enlarged(frame, scale) for scale in self.views.scales]
        if self.views.flip:
            found += [self._enlarged(frame, scale, mirrored=True).flip(3) for scale in self.views.scales]
        return torch.stack(found).mean(0)

    def _enlarged(self, frame: npt.NDArray[np.uint8], scale: float, mirrored: bool = False) -> Tensor:
        """Probabilities for an enlarged frame, brought together from tiles to the grid of the model's logits."""
        whole = round(self.spec.height * scale), round(self.spec.width * scale)
        pixels = turned(fit(frame, self.spec.resized(whole)), mirrored)
        starts = [tile_starts(*lengths) for lengths in zip(whole, self.spec.size, strict=True)]
        tiles = [[self._tile(pixels, (top, left)) for left in starts[1]] for top in starts[0]]
        cells = tiles[0][0].shape[2:]
        down, across = (
            tile_shares(length, cells[axis], whole[axis], starts[axis], self.spec.align_corners)
            for axis, length in enumerate(self.spec.size)
        )
        rows = [sum(tile @ share.T for tile, share in zip(row, across, strict=True)) for row in tiles]
        return sum((share @ row for share, row in zip(down, rows, strict=True)), torch.zeros(()))

    def _tile(self, pixels: npt.NDArray[np.uint8], start: Size) -> Tensor:
        """Probabilities `(1, classes, h, w)` of the tile that begins at a row and a column."""
        (top, left), (height, width) = start, self.spec.size
        return self._logits(pixels[top : top + height, left : left + width])[:1].softmax(1)

    def _logits(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        logits: Tensor
        (logits,) = self.network(torch.from_numpy(feed(pixels, self.spec, self.batch)))
        return logits


def turned(pixels: npt.NDArray[np.uint8], mirrored: bool) -> npt.NDArray[np.uint8]:
    """A frame or its labels, mirrored from left to right if asked to."""
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


def tile_starts(whole: int, tile: int) -> list[int]:
    """Where the fewest tiles begin that cover an axis, evenly.

    >>> tile_starts(540, 360), tile_starts(360, 360), tile_starts(900, 360)
    ([0, 180], [0], [0, 270, 540])
    """
    count = math.ceil(whole / tile)
    return [round(i * (whole - tile) / max(count - 1, 1)) for i in range(count)]


def tile_shares(pixels: int, cells: int, whole: int, starts: Sequence[int], align_corners: bool) -> list[Tensor]:
    """What each cell of the frame's logits along an axis takes from the cells of each tile's.

    A cell takes what stands at its centre, between two cells of a tile in proportion, and where tiles overlap the
    mean over all that hold its centre.

    Args:
        pixels: of the model's input along the axis, and of a tile.
        cells: of its logits.
        whole: pixels of the enlarged frame.
        starts: of the tiles.
        align_corners: how the model enlarges its logits.

    Returns:
        A matrix `(cells, cells)` for each tile; those of a row add up to 1.

    >>> [share.tolist() for share in tile_shares(4, 2, 8, [0, 4], align_corners=False)]
    [[[0.5, 0.5], [0.0, 0.0]], [[0.0, 0.0], [0.5, 0.5]]]
    """
    spacing = (pixels - 1) / max(cells - 1, 1) if align_corners else pixels / cells
    first = 0.5 if align_corners else spacing / 2
    centres = (first + spacing * torch.arange(cells)) * (whole / pixels)
    places = torch.stack([centres - start for start in starts])
    held = (places >= 0) & (places <= pixels)
    positions = ((places - first) / spacing).clamp(0, cells - 1)
    shares = (1 - (positions[..., None] - torch.arange(cells)).abs()).clamp_min(0)
    return list(shares * (held / held.sum(0))[..., None])
