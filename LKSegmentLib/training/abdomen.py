"""A synthetic abdomen: a CT that never was a patient, with labels, for demonstrations, benchmarks and tests.

Organs are implicit shapes in RAS millimetres, bent by one smooth displacement field, so the grid can lie anyhow:
by default it is oblique and anisotropic, as a real scan may be. Intensities are Hounsfield units of a portal venous
phase. The same seed and grid give the same voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from LKSegmentLib.volumes import Grid, Volume

Field = NDArray[np.float32]

#: Label values of the parts that are known exactly; everything else is 0.
LABELS = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "liver",
    5: "stomach",
    6: "aorta",
    7: "inferior vena cava",
    8: "vertebrae",
    9: "urinary bladder",
    10: "bowel",
}

_BODY = (0.0, 0.0, 0.0), (158.0, 112.0)  # centre (r, a, s) and half axes (r, a), mm


@dataclass(frozen=True)
class Abdomen:
    """`volume`: int16 Hounsfield units; `labels`: uint8 on the same grid, values of `LABELS`."""

    volume: Volume
    labels: Volume


def demonstration_grid() -> Grid:
    """160 x 120 x 96 voxels (i, j, k) of 2.2 x 2.2 x 3 mm, turned by 14 and 9 degrees, with Slicer-like LPS axes."""
    turn, tilt = np.deg2rad(14.0), np.deg2rad(9.0)
    about_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_r = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    shape = (96, 120, 160)
    matrix = np.eye(4)
    matrix[:3, :3] = about_s @ about_r @ np.diag([-2.2, -2.2, 3.0])
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, matrix)


def make_abdomen(seed: int = 0, grid: Grid | None = None) -> Abdomen:
    """Draw one on `grid` (default `demonstration_grid()`), which should be centred near the RAS origin."""
    painter = _Painter(demonstration_grid() if grid is None else grid, seed)
    _paint_body(painter)
    _paint_skeleton(painter)
    _paint_organs(painter)
    _paint_bowel(painter)
    _paint_vessels(painter)
    return painter.finished()


class _Painter:
    """Paints shapes one over the other: `image` in Hounsfield units, `labels` where a shape covers half a voxel."""

    def __init__(self, grid: Grid, seed: int) -> None:
        self.grid = grid
        self.rng = np.random.default_rng(seed)
        k, j, i = (np.arange(size, dtype=np.float32) for size in grid.shape)
        matrix = grid.ijk_to_ras.astype(np.float32)
        axes = [i[None, None, :], j[None, :, None], k[:, None, None]]
        self.coordinates: list[Field] = []  # (r, a, s) after bending; each (k, j, i)
        for row in range(3):
            straight = sum((matrix[row, axis] * axes[axis] for axis in range(3)), matrix[row, 3])
            self.coordinates.append(np.asarray(straight + self.noise(38.0) * 4.5, dtype=np.float32))
        self.image: Field = np.full(grid.shape, -1000.0, np.float32)
        self.labels = np.zeros(grid.shape, np.uint8)
        self.softness = float(np.mean(grid.spacing))  # width of a partial-volume edge, mm

    def noise(self, scale_mm: float) -> Field:
        """Smooth noise of standard deviation 1 with bumps of about `scale_mm`, drawn on a coarse grid."""
        zoom = [max(1.0, scale_mm / (2.5 * spacing)) for spacing in self.grid.spacing[::-1]]
        coarse_shape = [int(np.ceil(size / factor)) + 4 for size, factor in zip(self.grid.shape, zoom, strict=True)]
        coarse = ndimage.gaussian_filter(self.rng.standard_normal(coarse_shape, dtype=np.float32), 1.0)
        fine = ndimage.zoom(coarse, np.array(zoom), order=1)[tuple(slice(0, size) for size in self.grid.shape)]
        return np.asarray(fine / max(float(fine.std()), 1e-6), dtype=np.float32)

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Field:
        """Approximate signed distance in mm, negative inside."""
        scaled = sum(
            ((axis - middle) / radius) ** 2
            for axis, middle, radius in zip(self.coordinates, centre, radii, strict=True)
        )
        return np.asarray((np.sqrt(scaled) - 1.0) * min(radii), dtype=np.float32)

    def tube(self, path: NDArray[np.float64], radius: float) -> Field:
        """Signed distance in mm to a tube along `path` (n, 3) RAS mm; far away only a large number."""
        distance = np.full(self.grid.shape, 1e3, np.float32)
        near = np.ones(self.grid.shape, bool)
        for axis, values in enumerate(self.coordinates):
            near &= (values > path[:, axis].min() - 2 * radius) & (values < path[:, axis].max() + 2 * radius)
        points = np.stack([values[near] for values in self.coordinates], axis=-1)
        found, _ = cKDTree(path).query(points, distance_upper_bound=3 * radius)
        distance[near] = np.minimum(found, 1e3)
        return distance - np.float32(radius)

    def paint(self, distance: NDArray[Any], value: float | NDArray[Any], label: int = 0, texture: float = 0.0) -> None:
        """Cover what lies under the shape; `texture` is the standard deviation of its inner structure in HU."""
        cover = np.clip(0.5 - distance / self.softness, 0.0, 1.0).astype(np.float32)
        inside = value + texture * self.noise(7.0) if texture else value
        self.image += cover * (inside - self.image)
        self.labels[cover > 0.5] = label

    def finished(self) -> Abdomen:
        """Add what a scanner adds: a little blur and correlated noise."""
        noise = ndimage.gaussian_filter(self.rng.standard_normal(self.grid.shape, dtype=np.float32), 0.55)
        image = ndimage.gaussian_filter(self.image, 0.35) + 14.0 * noise / noise.std()
        voxels = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
        return Abdomen(Volume(voxels, self.grid.ijk_to_ras), Volume(self.labels, self.grid.ijk_to_ras))


def _paint_body(painter: _Painter) -> None:
    r, a, s = painter.coordinates
    _, (half_r, half_a) = _BODY
    # A superellipse: flatter in front and behind than an ellipse, as people lying on a table are.
    reach = (np.abs(r / half_r) ** 2.4 + np.abs(a / half_a) ** 2.4) ** np.float32(1 / 2.4)
    skin = (reach - 1.0) * half_a
    table = np.abs(a + 128.0 - (r / 60.0) ** 2 * 2.0) - 5.0
    painter.paint(np.maximum(table, np.abs(r) - 190.0), -350.0)
    painter.paint(skin, 20.0)
    painter.paint(skin + 3.0, -105.0, texture=7.0)  # fat under the skin
    wall = skin + 22.0 + 4.0 * painter.noise(45.0)
    painter.paint(wall, 58.0, texture=8.0)  # muscle
    painter.paint(wall + 15.0, -98.0, texture=9.0)  # fat around the organs
    for side in (-1.0, 1.0):  # lung bases
        lung = painter.ellipsoid((side * 70.0, -12.0, 165.0), (58.0, 72.0, 78.0))
        painter.paint(lung, -860.0, texture=22.0)


def _paint_skeleton(painter: _Painter) -> None:
    r, a, s = painter.coordinates
    height = np.mod(s + 16.0, 34.0) - 17.0
    body = np.hypot(r / 1.25, a + 62.0) - 18.0
    vertebra = np.maximum(body, np.abs(height) - 13.0)
    painter.paint(np.maximum(body, np.abs(height) - 18.0), 75.0)  # discs
    painter.paint(vertebra, 420.0, label=8)
    painter.paint(vertebra + 3.0, 190.0, label=8, texture=28.0)
    arch = np.maximum(np.abs(r) - 7.0, np.abs(a + 96.0) - 15.0)
    painter.paint(np.maximum(arch, np.abs(height) - 9.0), 330.0, label=8)
    painter.paint(np.hypot(r, a + 87.0) - 8.0, 25.0)  # spinal canal
    for side in (-1.0, 1.0):
        painter.paint(painter.ellipsoid((side * 42.0, -60.0, -30.0), (20.0, 17.0, 90.0)), 62.0, texture=8.0)  # psoas
        painter.paint(painter.ellipsoid((side * 38.0, -93.0, 0.0), (30.0, 14.0, 300.0)), 60.0, texture=12.0)
    angle = np.arctan2(np.abs(r), -a)
    ribs = np.abs(np.mod(s + 38.0 * angle, 26.0) - 13.0) - 4.5
    ring = np.abs((np.abs(r / 158.0) ** 2.4 + np.abs(a / 112.0) ** 2.4) ** np.float32(1 / 2.4) * 112.0 - 84.0) - 4.0
    painter.paint(np.maximum(np.maximum(ribs, ring), 30.0 - s + 25.0 * (a > 20)), 480.0)


def _paint_organs(painter: _Painter) -> None:
    r, a, s = painter.coordinates
    right_lobe = painter.ellipsoid((72.0, 2.0, 68.0), (58.0, 72.0, 70.0))
    left_lobe = painter.ellipsoid((8.0, 38.0, 84.0), (64.0, 34.0, 34.0))
    liver = np.maximum(np.minimum(right_lobe, left_lobe), 16.0 - 0.55 * r + 0.35 * a - s + 24.0)
    painter.paint(liver, 112.0, label=4, texture=5.0)
    painter.paint(painter.ellipsoid((92.0, 18.0, 52.0), (13.0, 12.0, 14.0)), 55.0, label=4)  # a lesion
    painter.paint(painter.ellipsoid((46.0, 52.0, 34.0), (14.0, 17.0, 24.0)), 14.0)  # gall bladder
    painter.paint(painter.ellipsoid((-92.0, -34.0, 78.0), (25.0, 40.0, 48.0)), 124.0, label=1, texture=5.0)
    stomach = painter.ellipsoid((-48.0, 32.0, 72.0), (38.0, 36.0, 44.0))
    painter.paint(stomach, 62.0, label=5)
    contents = np.where(a > 44.0, np.float32(-900.0), np.float32(22.0) + 9.0 * painter.noise(14.0))
    painter.paint(stomach + 5.0, contents, label=5)
    for side, label, low in ((1.0, 2, -6.0), (-1.0, 3, 6.0)):
        centre = (side * 66.0, -52.0, 8.0 + low)
        kidney = painter.ellipsoid(centre, (26.0, 25.0, 52.0))
        painter.paint(kidney, 188.0, label=label, texture=6.0)
        painter.paint(kidney + 9.0 + 2.5 * painter.noise(11.0), 138.0, label=label, texture=6.0)  # medulla
        painter.paint(painter.ellipsoid((side * 50.0, -46.0, centre[2]), (13.0, 9.0, 17.0)), 12.0)  # renal pelvis
    pancreas = _smooth_path([(38, 6, 26), (20, 2, 30), (-4, 0, 38), (-34, -8, 48), (-66, -20, 56)])
    painter.paint(painter.tube(pancreas, 11.0) + 2.0 * painter.noise(9.0), 92.0, texture=11.0)
    bladder = painter.ellipsoid((0.0, 26.0, -112.0), (38.0, 33.0, 28.0))
    painter.paint(bladder, 42.0, label=9)
    painter.paint(bladder + 4.0, 8.0, label=9)


def _paint_bowel(painter: _Painter) -> None:
    colon = _smooth_path(
        [(98, -8, -82), (106, -4, -40), (100, 12, -6), (62, 58, 6), (0, 66, 2), (-62, 56, 22), (-104, -6, 12),
         (-108, -14, -40), (-92, -4, -88), (-42, 20, -100)]
    )  # fmt: skip
    wall = painter.tube(colon, 21.0) + 3.5 * painter.noise(16.0)
    painter.paint(wall, 60.0, label=10)
    painter.paint(wall + 4.0, -180.0 + 330.0 * np.tanh(painter.noise(20.0)), label=10)
    draw = painter.rng.uniform
    corners = [(draw(-62, 62), draw(12, 62), -74.0 + 62.0 * step / 17 + draw(-8, 8)) for step in range(18)]
    wall = painter.tube(_smooth_path(corners), 13.0) + 1.5 * painter.noise(10.0)
    painter.paint(wall, 88.0, label=10)
    contents = 34.0 + 16.0 * painter.noise(12.0)
    painter.paint(wall + 4.5, np.where(painter.noise(30.0) > 1.9, -700.0, contents), label=10)


def _paint_vessels(painter: _Painter) -> None:
    aorta = _smooth_path([(-8, -32, 150), (-10, -33, 60), (-6, -32, 0), (-3, -31, -48)])
    cava = _smooth_path([(20, -12, 150), (24, -24, 60), (22, -34, 0), (18, -34, -48)])
    painter.paint(painter.tube(aorta, 10.5), 168.0, label=6)
    painter.paint(painter.tube(cava, 11.5), 142.0, label=7)
    for side in (-1.0, 1.0):
        iliac = _smooth_path([(0, -32, -46), (side * 24, -30, -84), (side * 52, -6, -124), (side * 66, 22, -160)])
        painter.paint(painter.tube(iliac, 6.5), 160.0)
    for end in ((88, -22, 92), (74, 36, 96), (22, 44, 92)):  # hepatic veins
        vein = _smooth_path([(24, -14, 118), (44, 4, 104), end])
        painter.paint(painter.tube(vein, 4.5), 158.0, label=4)
    portal = _smooth_path([(2, 4, 34), (28, 4, 48), (50, 8, 62), (78, 2, 66)])
    painter.paint(painter.tube(portal, 6.5), 160.0)


def _smooth_path(corners: list[tuple[float, float, float]]) -> NDArray[np.float64]:
    """Points every 1.5 mm or so along a curve near `corners` (RAS mm)."""
    given = np.array(corners, dtype=np.float64)
    lengths = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(given, axis=0), axis=1))))
    steps = np.linspace(0.0, lengths[-1], max(8, int(lengths[-1] / 1.5)))
    dense = np.stack([np.interp(steps, lengths, given[:, axis]) for axis in range(3)], axis=-1)
    return np.asarray(ndimage.gaussian_filter1d(dense, 9.0, axis=0, mode="nearest"))
