"""Where the car's camera is and where it sees a point."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from roadseg.runtime import Size

NEAR_M = 1.2
"""Nothing closer is drawn. Faces lie along the road or across it, so holding depth here clips them exactly."""
FAR_PX = 20000.0
"""Pixel coordinates are held within this, for OpenCV's fixed-point arithmetic."""
POINTS_PER_PX = 16
"""Polygons are placed to this fraction of a pixel."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the road. x is to the right, y up, z along the road, all in metres."""

    size: Size
    x: float
    height: float
    z: float
    focal: float
    """Focal length as a fraction of the columns."""
    horizon: float
    """Height of the horizon as a fraction of the rows, from the top: the camera's pitch."""
    yaw: float
    """Tangent of the angle to the road; positive looks to the left."""
    bend: float
    """How the road turns: half its curvature, 1/m; positive turns right."""

    @property
    def focal_px(self) -> float:
        return self.focal * self.size[1]

    @property
    def horizon_px(self) -> float:
        return self.horizon * self.size[0]

    def project(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Pixel coordinates `(..., 2)` (column, row) of world points `(..., 3)` in metres."""
        depth = np.maximum(points[..., 2] - self.z, NEAR_M)
        pixels = np.empty((*depth.shape, 2))
        right = (points[..., 0] - self.x) / depth + (self.yaw + self.bend * depth)
        down = (self.height - points[..., 1]) / depth
        pixels[..., 0] = right * self.focal_px + self.size[1] / 2
        pixels[..., 1] = down * self.focal_px + self.horizon_px
        return np.minimum(np.maximum(pixels, -FAR_PX), FAR_PX)

    def depth(self, z: float) -> float:
        """Distance along the road from the camera to `z`, in metres."""
        return z - self.z

    def ground(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """World x `(rows, columns)` and depth `(rows, 1)` of the ground at each pixel under the horizon."""
        rows, columns = self.size
        first = int(self.horizon_px) + 1
        below = np.arange(first, rows)[:, None] + (0.5 - self.horizon_px)
        depth = np.asarray(self.height * self.focal_px / below, np.float64)
        slant = (np.arange(columns) + 0.5 - columns / 2)[None] / self.focal_px - (self.yaw + self.bend * depth)
        return self.x + slant * depth, depth
