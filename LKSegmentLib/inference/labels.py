"""From stitched logits to labels on the image's grid, one slab at a time.

The logits themselves are interpolated and the labels decided at the image's own voxels. This follows a boundary
to a fraction of the network's voxel, where enlarging finished labels would leave steps. Only a few slices of
logits exist at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from LKSegmentLib.errors import RunError
from LKSegmentLib.inference.preparation import Preparation
from LKSegmentLib.inference.windows import Region
from LKSegmentLib.packages import Manifest

# Interpolated logits of one slice are made in bands of rows of about this size.
BAND_BYTES = 64 * 2**20


@dataclass(frozen=True)
class AxisMap:
    """Where the image's voxels lie between the network's, along one axis: working = step * index + offset.

    Beyond the outermost working centres (by at most half a voxel) the outermost value holds.
    """

    length: int
    working_length: int
    step: float
    offset: float

    @property
    def is_identity(self) -> bool:
        """Whether voxel n of the image is voxel n of the working grid."""
        return self.length == self.working_length and (self.step, self.offset) == (1.0, 0.0)

    def positions(self, low: int, high: int) -> NDArray[np.float64]:
        """Return the working positions of the image voxels low <= index < high, clamped to the outermost centres."""
        return np.clip(self.step * np.arange(low, high) + self.offset, 0.0, self.working_length - 1.0)

    def needed(self, low: int, high: int) -> tuple[int, int]:
        """Return the working voxels low <= index < high that interpolation for these image voxels reads."""
        positions = self.positions(low, high)
        return int(np.floor(positions[0])), int(np.ceil(positions[-1])) + 1


def axis_maps(preparation: Preparation) -> tuple[AxisMap, AxisMap, AxisMap]:
    """Return the maps along k, j and i from the canonical image grid to the working grid."""
    canonical, working = preparation.order.canonical.shape, preparation.working.shape
    if not preparation.resampled:
        k, j, i = (AxisMap(length, length, 1.0, 0.0) for length in canonical)
        return k, j, i
    k, j, i = (AxisMap(canonical[axis], working[axis], *preparation.source_of(axis)) for axis in range(len(canonical)))
    return k, j, i


@dataclass(frozen=True)
class Tile:
    """A part of the image's j, i plane that is finished in one pass over k, and what it needs of the working grid."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    region: Region


def tiles_of(maps: tuple[AxisMap, AxisMap, AxisMap], parts: tuple[int, int]) -> list[Tile]:
    """Cut the image's j, i plane into parts[0] times parts[1] tiles."""
    tiles = []
    along_k = maps[0].working_length
    for rows in split(maps[1].length, parts[0]):
        for columns in split(maps[2].length, parts[1]):
            (low_j, high_j), (low_i, high_i) = maps[1].needed(*rows), maps[2].needed(*columns)
            tiles.append(Tile(rows, columns, Region((0, low_j, low_i), (along_k, high_j, high_i))))
    return tiles


def split(length: int, parts: int) -> list[tuple[int, int]]:
    """Cut 0..length into `parts` (at most `length`) stretches of nearly equal size."""
    ends = [round(number * length / min(parts, length)) for number in range(min(parts, length) + 1)]
    return list(zip(ends[:-1], ends[1:], strict=True))


def write_labels(
    slabs: Iterator[tuple[int, torch.Tensor]],
    tile: Tile,
    maps: tuple[AxisMap, AxisMap, AxisMap],
    manifest: Manifest,
    labels: NDArray[np.uint16],
) -> None:
    """Fill the tile's part of `labels` (k, j, i) on the canonical image grid from the slabs of `windows.stitched`.

    Raises RunError when the logits are not finite.
    """
    below = maps[0].positions(0, maps[0].length)
    index = 0
    previous: torch.Tensor | None = None
    sampling: torch.Tensor | None = None
    target = labels[:, tile.rows[0] : tile.rows[1], tile.columns[0] : tile.columns[1]]
    for first, slab in slabs:
        if not np.isfinite(float(slab.sum())):
            raise RunError(
                f'The network of the model "{manifest.name}" answered with values that are not finite: '
                "check the image's intensities, or get the model anew."
            )
        if sampling is None:
            sampling = sampling_grid(tile, maps, slab.device)
        last = first + slab.shape[1] - 1
        while index < maps[0].length and np.ceil(below[index]) <= last:
            lower = int(np.floor(below[index]))
            lower_slice = slab[:, lower - first] if lower >= first or previous is None else previous
            share = float(below[index] - lower)
            logits = torch.lerp(lower_slice, slab[:, lower + 1 - first], share) if share > 0.0 else lower_slice
            write_slice(logits, sampling, manifest.output, target[index])
            index += 1
        previous = slab[:, -1].clone()


def sampling_grid(tile: Tile, maps: tuple[AxisMap, AxisMap, AxisMap], device: torch.device) -> torch.Tensor:
    """Return where the tile's voxels lie in its region: (j, i, 2), x before y, -1..1 between outermost centres.

    Empty when the tile's voxels are those of the region.
    """
    if maps[1].is_identity and maps[2].is_identity:
        return torch.empty(0, device=device)
    along = []
    for axis, stretch in ((1, tile.rows), (2, tile.columns)):
        within = maps[axis].positions(*stretch) - tile.region.lower[axis]
        span = max(1, tile.region.shape[axis] - 1)
        along.append(torch.from_numpy((2.0 * within / span - 1.0).astype(np.float32)))
    rows, columns = torch.meshgrid(along[0], along[1], indexing="ij")
    return torch.stack((columns, rows), dim=-1).to(device)


def write_slice(logits: torch.Tensor, sampling: torch.Tensor, output: str, target: NDArray[np.uint16]) -> None:
    """Interpolate one slice of logits (channels, j, i) within the plane and write its labels to `target` (j, i)."""
    if sampling.numel() == 0:
        target[:] = decided(logits, output)
        return
    rows, columns = target.shape
    band = max(1, BAND_BYTES // (4 * logits.shape[0] * columns))
    for first in range(0, rows, band):
        part = sampling[None, first : first + band]
        fine = torch.nn.functional.grid_sample(
            logits[None], part, mode="bilinear", padding_mode="border", align_corners=True
        )
        target[first : first + band] = decided(fine[0], output)


def decided(logits: torch.Tensor, output: str) -> NDArray[np.uint16]:
    """Return the labels of logits (channels, j, i).

    Classes: the largest logit wins, the first of equal ones. Regions: channel n is label n + 1 where its
    probability exceeds one half; where regions overlap, the last one listed wins.
    """
    if output == "classes":
        winners = logits.max(dim=0).indices
    else:
        winners = torch.zeros(logits.shape[1:], dtype=torch.int64, device=logits.device)
        for number, channel in enumerate(logits):
            winners.masked_fill_(channel > 0.0, number + 1)
    result: NDArray[np.uint16] = winners.cpu().numpy().astype(np.uint16)
    return result
