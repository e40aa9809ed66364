"""A map over the image, and its passport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from LKSegmentLib.volumes import Grid, Volume

SENTENCE = "Shows where the gate was open; it does not prove cause."


@dataclass(frozen=True)
class Map:
    """``volume``: raw values float32 (k, j, i) on the map's own grid; ``passport``: JSON-ready, what they mean."""

    name: str
    volume: Volume
    passport: dict[str, Any]


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
