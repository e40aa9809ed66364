"""A cube of isotropic voxels laid over a volume: image in, answer back out, at the right place in millimetres.

Window and volume share their axis directions, so sampling separates into three small matrix products, one an axis.
Going to coarser voxels averages over each coarse voxel, which keeps noise and aliasing down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.volumes import Grid
from LKSegmentLib.volumes.volume import LARGEST_PLAUSIBLE_VALUE

Float = NDArray[np.float32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ClickWindow:
    """``edge``³ voxels of ``step`` mm, centred at ``centre`` (k, j, i; in voxels of ``grid``, fractions allowed)."""

    grid: Grid
    centre: tuple[float, float, float]
    step: float
    edge: int

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Window step in voxels of the volume, along (k, j, i)."""
        i, j, k = self.grid.spacing
        return self.step / k, self.step / j, self.step / i

    @property
    def window_grid(self) -> Grid:
        """Where the window's voxels are in the world."""
        corner = [middle - (self.edge - 1) / 2 * ratio for middle, ratio in zip(self.centre, self.ratios, strict=True)]
        matrix = np.eye(4)
        matrix[:3, :3] = self.grid.ijk_to_ras[:3, :3] * np.array(self.ratios[::-1])
        matrix[:3, 3] = self.grid.ras_of(np.array(corner[::-1]))
        return Grid((self.edge,) * 3, matrix)

    @property
    def volume_box(self) -> Box:
        """The voxels of the volume (slices along k, j, i) whose centres lie in the window."""
        bounds = []
        for middle, ratio, size in zip(self.centre, self.ratios, self.grid.shape, strict=True):
            half = self.edge / 2 * ratio
            low = int(np.clip(np.ceil(middle - half), 0, size))
            high = int(np.clip(np.floor(middle + half) + 1, low, size))
            bounds.append(slice(low, high))
        return bounds[0], bounds[1], bounds[2]

    @property
    def covers_volume(self) -> bool:
        """Whether no voxel of the volume lies outside of the window."""
        return all(part == slice(0, size) for part, size in zip(self.volume_box, self.grid.shape, strict=True))

    def position_of(self, voxel: NDArray[np.float64]) -> tuple[float, float, float]:
        """A place in voxels of the volume (k, j, i) → in voxels of the window (k, j, i)."""
        k, j, i = (
            float((value - middle) / ratio + (self.edge - 1) / 2)
            for value, middle, ratio in zip(voxel, self.centre, self.ratios, strict=True)
        )
        return k, j, i

    def sample(self, array: NDArray[np.generic]) -> Float:
        """The volume's intensities ``(k, j, i)`` in the window, float32. Beyond the volume: the lowest inside."""
        weights, bounds = [], []
        for axis in range(3):
            matrix, low, high = self._sampling(axis)
            weights.append(matrix)
            bounds.append(slice(low, high))
        crop = _usable(np.asarray(array[tuple(bounds)]))
        sampled = _apply(crop, weights)
        outside = [matrix.sum(1) < 0.5 for matrix in weights]
        beyond = outside[0][:, None, None] | outside[1][:, None] | outside[2]
        if beyond.all():
            return np.zeros_like(sampled)
        sampled[beyond] = sampled[~beyond].min()
        return sampled

    def spread(self, values: Float) -> Float:
        """Values ``(edge, edge, edge)`` of the window at the volume's voxels in :attr:`volume_box`, linearly."""
        weights = []
        for axis, part in enumerate(self.volume_box):
            places = (np.arange(part.start, part.stop) - self.centre[axis]) / self.ratios[axis] + (self.edge - 1) / 2
            weights.append(_weights(places, self.edge, 0.0))
        return _apply(values, weights)

    def spread_over(self, values: Float, other: ClickWindow) -> Float:
        """Values ``(edge, edge, edge)`` of this window at the voxels of another one of the same grid, linearly.

        Beyond this window the outermost values go on.
        """
        weights = []
        for axis in range(3):
            places = other.centre[axis] + (np.arange(other.edge) - (other.edge - 1) / 2) * other.ratios[axis]
            places = (places - self.centre[axis]) / self.ratios[axis] + (self.edge - 1) / 2
            weights.append(_weights(places, self.edge, 0.0))
        return _apply(values, weights)

    def outermost_inside(self) -> list[tuple[int, int]]:
        """Faces ``(axis, index)`` of the window that lie within the volume: where a structure may go on."""
        faces = []
        for axis, size in enumerate(self.grid.shape):
            half = (self.edge - 1) / 2 * self.ratios[axis]
            if self.centre[axis] - half > 0:
                faces.append((axis, 0))
            if self.centre[axis] + half < size - 1:
                faces.append((axis, self.edge - 1))
        return faces

    def _sampling(self, axis: int) -> tuple[Float, int, int]:
        """Weights ``(edge, high - low)`` over the volume's voxels ``low … high`` along one axis."""
        size, ratio = self.grid.shape[axis], self.ratios[axis]
        places = self.centre[axis] + (np.arange(self.edge) - (self.edge - 1) / 2) * ratio
        width = ratio if ratio > 1 else 0.0
        reach = 1 + width / 2
        low = int(np.clip(np.floor(places[0] - reach), 0, size - 1))
        high = int(np.clip(np.ceil(places[-1] + reach) + 1, low + 1, size))
        inside = (places >= -0.5) & (places <= size - 0.5)
        weights = _weights(np.clip(places, 0, size - 1) - low, high - low, width)
        weights[~inside] = 0
        return weights, low, high


def _weights(places: NDArray[np.floating], size: int, width: float) -> Float:
    """``(len(places), size)``, each row summing to 1: the linear interpolant, averaged over ``width`` voxels.

    ``width`` 0 is plain linear interpolation. Either way linear functions are reproduced away from the ends.
    """
    offsets = np.clip(places, 0, size - 1)[:, None] - np.arange(size)[None]
    if width == 0:
        weights = np.clip(1 - np.abs(offsets), 0, None)
    else:
        weights = _triangle_below(offsets + width / 2) - _triangle_below(offsets - width / 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _triangle_below(offset: NDArray[np.floating]) -> NDArray[np.floating]:
    """The integral of the unit triangle ``max(0, 1 - |t|)`` from -∞ to ``offset``."""
    t = np.clip(offset, -1, 1)
    return np.where(t < 0, 0.5 * (1 + t) ** 2, 1 - 0.5 * (1 - t) ** 2)


def _apply(array: Float, weights: list[Float]) -> Float:
    """One matrix an axis, the most shrinking one first."""
    order = sorted(range(3), key=lambda axis: weights[axis].shape[0] / max(1, weights[axis].shape[1]))
    for axis in order:
        array = np.moveaxis(np.tensordot(weights[axis], array, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(array, dtype=np.float32)


def _usable(crop: NDArray[np.generic]) -> Float:
    """The values as float32; where one is no measurement (as in `volumes.sanitized`), the lowest of the others."""
    with np.errstate(over="ignore"):
        values = crop.astype(np.float32)
    if np.issubdtype(crop.dtype, np.floating):
        with np.errstate(invalid="ignore"):
            good = np.abs(values) <= LARGEST_PLAUSIBLE_VALUE
        if not good.all():
            values[~good] = values[good].min() if good.any() else 0
    return values
