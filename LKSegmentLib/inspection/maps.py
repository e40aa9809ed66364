"""A map over the image, and its passport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.volumes import Grid, Volume

from .tables import Table

SENTENCE = "Shows where the gate was open; it does not prove cause."
CASE = "values in this case"
"""Where a passport keeps `case_percentiles`."""
WINDOW_VALUES = "values of windows"
"""Where the passport of a map that has one number for each window keeps them."""


@dataclass(frozen=True)
class Map:
    """``volume``: raw values float32 (k, j, i) on the map's own grid; ``passport``: JSON-ready, what they mean."""

    name: str
    volume: Volume
    passport: dict[str, Any]


@dataclass(frozen=True)
class Inspection:
    """What a model answered and showed.

    Attributes:
        labels: the mask of a click model (uint8) or the labels (uint16), on the volume's grid, the same as without
            inspecting; 0 everywhere where only what the weights alone tell was asked for.
        maps: what has a place, float32 in raw units on grids of their own.
        tables: what has none: numbers of slices, of channels, of windows, of clicks.
    """

    labels: Volume
    maps: list[Map]
    tables: list[Table]


def case_percentiles(values: NDArray[Any], percentiles: tuple[float, float] = (2.0, 99.8)) -> dict[str, float]:
    """Least, low percentile, high percentile and most of all finite values: one scale for every slice of a case.

    0 and 1 where no value is finite. The keys are "least", "low", "high" and "most".
    """
    finite = np.asarray(values)
    if not np.isfinite(finite).all():
        finite = finite[np.isfinite(finite)]
    if not finite.size:
        return {"least": 0.0, "low": 0.0, "high": 1.0, "most": 1.0}
    low, high = (float(edge) for edge in np.percentile(finite, percentiles))
    return {"least": float(finite.min()), "low": low, "high": high, "most": float(finite.max())}


def reduced_grid(window: Grid, stride: int, shape: tuple[int, int, int], offset: float) -> Grid:
    """The grid of a feature map in the world.

    Args:
        window: the grid that the network saw.
        stride: window voxels per map voxel.
        shape: of the map (k, j, i).
        offset: where map voxel 0 is centred, in window voxels: 0 for maps of an encoder of odd, symmetrically
            padded kernels (map voxel n is centred on window voxel ``stride · n``), ``(stride - 1) / 2`` for maps
            of a decoder of 2³ transposed convolutions (a map voxel covers a block of window voxels).
    """
    matrix = np.eye(4)
    matrix[:3, :3] = window.ijk_to_ras[:3, :3] * stride
    matrix[:3, 3] = window.ras_of((offset,) * 3)
    return Grid(shape, matrix)
