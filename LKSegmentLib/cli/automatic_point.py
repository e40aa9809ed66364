"""Where the demonstration clicks when nobody says where: deep inside something even and bright near the middle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LKSegmentLib.volumes import Volume, sanitized

_MOST_VOXELS = 96  # along each axis; finer does not help to find a large region
_EVENNESS = 0.35  # the calmest share of the object's voxels counts as even
_BRIGHT = (55.0, 98.0)  # percentiles of the object's values


def automatic_point(volume: Volume) -> tuple[float, float, float]:
    """RAS mm of a point deep inside a large, even, rather bright region near the middle of a (k, j, i) volume.

    An image without any such region gives its centre.
    """
    steps = [int(np.ceil(size / _MOST_VOXELS)) for size in volume.grid.shape]
    coarse = sanitized(volume).array[tuple(slice(None, None, step) for step in steps)].astype(np.float32)
    spacing = np.array(volume.spacing[::-1]) * steps
    smooth = ndimage.gaussian_filter(coarse, 1.0)
    unrest = np.sqrt(np.maximum(ndimage.gaussian_filter(coarse**2, 1.5) - ndimage.gaussian_filter(coarse, 1.5) ** 2, 0))
    low, high = np.percentile(smooth, (2.0, 98.0))
    # The middle of the range separates body from air for CT, and tissue from background for MR.
    inside = smooth > low + 0.35 * (high - low)
    if not inside.any():
        return _as_triple(volume, (np.array(volume.grid.shape) - 1) / 2)
    dark, bright = np.percentile(smooth[inside], _BRIGHT)
    even = inside & (smooth >= dark) & (smooth <= bright) & (unrest <= np.quantile(unrest[inside], _EVENNESS))
    padded = np.pad(ndimage.binary_closing(even), 1)  # the border of the image is an edge too
    depth = ndimage.distance_transform_edt(padded, sampling=spacing)[1:-1, 1:-1, 1:-1]
    middle = (np.array(depth.shape) - 1) / 2
    offsets = [(np.arange(size) - centre) / (0.75 * size) for size, centre in zip(depth.shape, middle, strict=True)]
    nearness = np.exp(-sum(axis**2 for axis in np.meshgrid(*offsets, indexing="ij", sparse=True)))
    if not depth.any():
        return _as_triple(volume, (np.array(volume.grid.shape) - 1) / 2)
    best = np.unravel_index(int(np.argmax(depth * nearness)), depth.shape)
    return _as_triple(volume, np.array(best) * steps)


def _as_triple(volume: Volume, kji: NDArray[Any]) -> tuple[float, float, float]:
    r, a, s = np.round(volume.grid.ras_of(kji[::-1]), 1)
    return float(r), float(a), float(s)
