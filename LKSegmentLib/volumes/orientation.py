"""Turning the axes of a volume so that i, j, k run closest to R, A, S, and back, without touching a value."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes.volume import Grid, Volume


@dataclass(frozen=True)
class AxisOrder:
    """A permutation and flips of the axes of `source`, which make it `canonical`.

    `axes[n]` is the index axis (0 = i, 1 = j, 2 = k) of the source that becomes axis n of the canonical grid,
    running backwards where `flips[n]`. `apply` and `undo` are inverses of each other to the last bit, values
    and matrix, and work for any array or volume whose axes are ordered like `source` (crops too).
    Results are C-contiguous; where nothing has to move they share memory with what was given.
    """

    source: Grid
    canonical: Grid
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @property
    def is_identity(self) -> bool:
        return self.axes == (0, 1, 2) and not any(self.flips)

    def apply_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """(k, j, i) or (channel, k, j, i) in source order -> the same in canonical order."""
        _require_spatial(array)
        lead = array.ndim - 3
        order = [lead + 2 - axis for axis in reversed(self.axes)]
        return np.ascontiguousarray(self._flipped(array.transpose(*range(lead), *order)))

    def undo_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """(k, j, i) or (channel, k, j, i) in canonical order -> the same in source order."""
        _require_spatial(array)
        lead = array.ndim - 3
        order = [lead + 2 - self.axes.index(axis) for axis in (2, 1, 0)]
        return np.ascontiguousarray(self._flipped(array).transpose(*range(lead), *order))

    def apply_grid(self, grid: Grid) -> Grid:
        """The grid of `apply_array`'s result, for an array on `grid`."""
        if grid == self.source:
            return self.canonical
        shape = tuple(grid.shape[2 - axis] for axis in reversed(self.axes))
        return Grid((shape[0], shape[1], shape[2]), grid.ijk_to_ras @ self._to_source(shape[::-1]))

    def undo_grid(self, grid: Grid) -> Grid:
        """The grid of `undo_array`'s result, for an array on `grid`."""
        if grid == self.canonical:
            return self.source
        shape = tuple(grid.shape[2 - self.axes.index(axis)] for axis in (2, 1, 0))
        backwards = np.linalg.inv(self._to_source(grid.shape[::-1]))
        return Grid((shape[0], shape[1], shape[2]), grid.ijk_to_ras @ backwards)

    def apply(self, volume: Volume) -> Volume:
        return Volume(self.apply_array(volume.array), self.apply_grid(volume.grid).ijk_to_ras)

    def undo(self, volume: Volume) -> Volume:
        return Volume(self.undo_array(volume.array), self.undo_grid(volume.grid).ijk_to_ras)

    def _flipped(self, array: NDArray[Any]) -> NDArray[Any]:
        steps = [slice(None, None, -1) if flip else slice(None) for flip in reversed(self.flips)]
        return array[(..., *steps)]

    def _to_source(self, canonical_size: tuple[int, ...]) -> NDArray[np.float64]:
        """4x4 from (i, j, k) in canonical order to (i, j, k) in source order; sizes are of the canonical array."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for axis, (source_axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[source_axis, axis] = -1.0 if flip else 1.0
            matrix[source_axis, 3] = canonical_size[axis] - 1 if flip else 0.0
        return matrix


def canonical_axes(grid: Grid) -> AxisOrder:
    """How to order the axes of `grid` so that i, j, k run closest to +R, +A, +S.

    Of the six permutations the one whose axes lie closest to R, A, S altogether is taken (the sum of the
    absolute cosines), so oblique grids stay oblique: nothing is resampled. Left-handed grids become
    right-handed by a flip, unless they are sheared beyond recognition.
    """
    cosines = grid.directions
    axes = max(permutations(range(3)), key=lambda order: sum(abs(cosines[row, order[row]]) for row in range(3)))
    order = (axes[0], axes[1], axes[2])
    flips = tuple(bool(cosines[row, order[row]] < 0.0) for row in range(3))
    draft = AxisOrder(grid, grid, order, (flips[0], flips[1], flips[2]))
    if draft.is_identity:
        return draft
    shape = tuple(grid.shape[2 - axis] for axis in reversed(order))
    matrix = grid.ijk_to_ras @ draft._to_source(shape[::-1])
    return AxisOrder(grid, Grid((shape[0], shape[1], shape[2]), matrix), order, draft.flips)


def _require_spatial(array: NDArray[Any]) -> None:
    if array.ndim not in (3, 4):
        raise InputError(f"Expected a (k, j, i) or (channel, k, j, i) array, but the shape is {array.shape}.")
