"""Agreement of two masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def dice(mask: Mask, reference: Mask) -> float:
    """``2 |X ∩ Y| / (|X| + |Y|)``; 1 when both are empty."""
    total = int(mask.sum()) + int(reference.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & reference).sum()) / total


def hausdorff95(mask: Mask, reference: Mask, spacing: tuple[float, float, float]) -> float:
    """The 95th percentile of the surface distances in mm, the larger of the two directions.

    ``spacing`` is along (k, j, i). Infinite when exactly one mask is empty, 0 when both are.
    """
    if not mask.any() or not reference.any():
        return 0.0 if mask.any() == reference.any() else float("inf")
    surfaces = [filled & ~ndimage.binary_erosion(filled) for filled in (mask, reference)]
    distances = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    there = np.percentile(distances[1][surfaces[0]], 95)
    back = np.percentile(distances[0][surfaces[1]], 95)
    return float(max(there, back))
