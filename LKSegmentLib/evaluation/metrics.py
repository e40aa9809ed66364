"""Agreement of two masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]


def dice(mask: Mask, reference: Mask) -> float:
    """``2 |X ∩ Y| / (|X| + |Y|)``; 1 when both are empty."""
    total = int(mask.sum()) + int(reference.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & reference).sum()) / total


def hausdorff95(mask: Mask, reference: Mask, spacing: Triple) -> float:
    """The 95th percentile of the surface distances in mm, the larger of the two directions.

    ``spacing`` is along (k, j, i). Infinite when exactly one mask is empty, 0 when both are.
    """
    if not mask.any() or not reference.any():
        return 0.0 if mask.any() == reference.any() else float("inf")
    surfaces = [_surface(filled) for filled in (mask, reference)]
    distances = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    there = np.percentile(distances[1][surfaces[0]], 95)
    back = np.percentile(distances[0][surfaces[1]], 95)
    return float(max(there, back))


class SurfaceDice:
    """Which share of two surfaces, taken together, lies within a tolerance of the other one.

    S. Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", JMIR 2021;
    here a surface is the voxels of a mask that have a face on its outside, each counting the same, and distances go
    from centre to centre. What the reference needs is done once, for many masks.

    Args:
        reference: (k, j, i).
        spacing: mm, along (k, j, i).
        tolerance: mm.
    """

    def __init__(self, reference: Mask, spacing: Triple, tolerance: float) -> None:
        reach = [int((tolerance + 1e-6) // step) for step in spacing]
        offsets = np.meshgrid(*(np.arange(-r, r + 1) * step for r, step in zip(reach, spacing, strict=True)),
                              indexing="ij")  # fmt: skip
        self._ball: NDArray[Any] = sum(np.square(axis) for axis in offsets) <= (tolerance + 1e-6) ** 2
        self._surface = _surface(reference)
        self._count = int(self._surface.sum())
        self._near = self._close_to(self._surface)

    def __call__(self, mask: Mask) -> float:
        """Between 0 and 1; 1 when both are empty, 0 when one is."""
        surface = _surface(mask)
        count = int(surface.sum())
        if not count or not self._count:
            return float(count == self._count)
        within = int((surface & self._near).sum()) + int((self._surface & self._close_to(surface)).sum())
        return within / (count + self._count)

    def _close_to(self, surface: Mask) -> Mask:
        result: Mask = ndimage.binary_dilation(surface, self._ball)
        return result


def _surface(filled: Mask) -> Mask:
    """The voxels with a face on the outside; the end of the array counts as outside."""
    inside: Mask = ndimage.binary_erosion(filled)
    return filled & ~inside
