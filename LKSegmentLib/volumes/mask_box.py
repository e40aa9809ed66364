"""A mask as its bounding box: what clicks answer, what crosses the process border, what the scene writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MaskBox:
    """A mask as its bounding box: ``array`` uint8 (k, j, i) placed at ``lower`` (k, j, i) of the volume's grid."""

    lower: tuple[int, int, int]
    array: NDArray[np.uint8]

    @classmethod
    def of(cls, mask: NDArray[np.generic]) -> MaskBox:
        """The bounding box of the non-zero voxels of a whole-volume mask (k, j, i)."""
        filled = np.asarray(mask) != 0
        bounds = []
        for axis in range(3):
            hit = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
            if hit.size == 0:
                return cls((0, 0, 0), np.zeros((0, 0, 0), np.uint8))
            bounds.append(slice(int(hit[0]), int(hit[-1]) + 1))
        lower = (bounds[0].start, bounds[1].start, bounds[2].start)
        return cls(lower, np.ascontiguousarray(filled[tuple(bounds)], dtype=np.uint8))

    def full(self, shape: Sequence[int]) -> Mask:
        """The mask on a whole grid of ``shape`` (k, j, i)."""
        mask = np.zeros(tuple(shape), bool)
        if self.array.size:
            place = tuple(slice(low, low + size) for low, size in zip(self.lower, self.array.shape, strict=True))
            mask[place] = self.array != 0
        return mask
