"""What a map is inside each segment, in a shell around it, and elsewhere. Needs no torch: the panel shows it.

Map and labels lie on different grids, oblique or not, coarse or fine. Both are read on the grid of the two whose voxels
are smaller, each place taking the value of the other's voxel that contains it. So nothing is interpolated, neither
labels nor gates; a segment smaller than a voxel of the map still has a value; and as all the places stand for the
same volume, a mean over them is a mean over millimetres, however anisotropic the voxels are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Grid, Volume, resample

from .maps import Map
from .probe import has_place
from .tables import Cell, Table

COLUMNS = (
    "segment",
    "map",
    "mean inside",
    "mean in the shell",
    "mean elsewhere",
    "unit",
    "voxels inside",
    "voxels in the shell",
    "voxels elsewhere",
    "inside (ml)",
    "of the segment in the map (%)",
)

_INSIDE, _SHELL, _ELSEWHERE = 1, 2, 3
_TIE_MM = 1e-4  # distances are float32: exactly the width of the shell is still in it


def means_by_segment(
    maps: Sequence[Map],
    labels: Volume,
    names: Sequence[str] | Mapping[int, str],
    shell_mm: float = 5.0,
) -> Table:
    """A row for each segment and map: its mean inside the segment, in a shell around it, and everywhere else.

    Args:
        maps: float (k, j, i) on any grids; kernels, which have no place in the image, are left out.
        labels: whole numbers (k, j, i), 0 for background; a mask of 0 and 1 is fine.
        names: of the segments; a list names the labels 1, 2, … in order (as `SegmentResult.names` does).
        shell_mm: the shell is everything outside the segment whose voxel centre is at most so far from the nearest
            centre inside; other segments that lie there belong to it. Along axes with wider voxels there is no shell.

    Returns:
        The columns `COLUMNS`. Means count only what the map covers; "voxels" counts the places that were read, on the
        finer of the two grids; "inside (ml)" is the volume of those inside. A mean over no place is None.

    Raises:
        InputError: labels that are no whole numbers, or a shell that is not wider than 0.
    """
    if labels.array.ndim != 3 or labels.array.dtype.kind not in "biu":
        raise InputError(
            f"Segments are whole numbers (k, j, i), not {labels.array.dtype} of shape {labels.array.shape}: convert "
            "them first."
        )
    if not shell_mm > 0:
        raise InputError(f"The shell around a segment must be wider than 0 mm, not {shell_mm:g} mm.")
    named = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
    rows = [
        (name, *_cells(found, parts))
        for value, name in named.items()
        for parts in [_Parts(labels, value, shell_mm)]
        for found in maps
        if has_place(found)
    ]
    passport: dict[str, Any] = {
        "name": "means by segment",
        "operator": f"mean of the map inside each segment, in a shell of {shell_mm:g} mm around it, and elsewhere in "
        "the map; raw values, read on the finer of the two grids, nothing interpolated",
        "kind": "summary",
        "unit": "of each map its own",
        "shell mm": float(shell_mm),
        "sentence": "A map that differs inside and outside goes along with the segment; that is no proof of a cause.",
    }
    return Table("means by segment", COLUMNS, tuple(rows), None, (), passport)


class _Parts:
    """Where inside, shell and elsewhere of one segment are, on the grid of the labels: uint8 (k, j, i)."""

    def __init__(self, labels: Volume, value: int, shell_mm: float) -> None:
        self.grid: Grid = labels.grid
        inside = labels.array == value
        codes = np.full(labels.grid.shape, _ELSEWHERE, np.uint8)
        box = _box_around(inside, np.ceil(shell_mm / np.array(labels.spacing[::-1])).astype(int))
        if box is not None:
            part = codes[box]
            part[_distance_mm(inside[box], labels.spacing) <= shell_mm + _TIE_MM] = _SHELL
            part[inside[box]] = _INSIDE
        self.voxels = int(inside.sum())
        self.volume = Volume(codes, labels.ijk_to_ras)


@dataclass(frozen=True)
class _Read:
    """Values and parts at the same places, each of which stands for so many mm³."""

    values: NDArray[np.float64]
    parts: NDArray[np.uint8]
    mm3: float


def _cells(found: Map, parts: _Parts) -> tuple[Cell, ...]:
    read = _read(found, parts)
    counts, means = [], []
    for part in (_INSIDE, _SHELL, _ELSEWHERE):
        there = read.values[read.parts == part]
        counts.append(int(there.size))
        means.append(float(there.mean()) if there.size else None)
    millilitres = counts[0] * read.mm3 / 1000
    whole = parts.voxels * _voxel_mm3(parts.grid) / 1000
    covered = min(100.0, 100 * millilitres / whole) if whole else None
    return (found.name, *means, str(found.passport.get("unit", "")), *counts, millilitres, covered)


def _read(found: Map, parts: _Parts) -> _Read:
    of_map, of_labels = _voxel_mm3(found.volume.grid), _voxel_mm3(parts.grid)
    if of_labels <= of_map:
        values = resample(_as_float(found.volume), parts.grid, "nearest", fill=float("nan")).array
        codes, mm3 = parts.volume.array, of_labels
    else:
        values = found.volume.array
        codes, mm3 = resample(parts.volume, found.volume.grid, "nearest", fill=0).array, of_map
    usable = np.isfinite(values)
    return _Read(values[usable].astype(np.float64), codes[usable], mm3)


def _as_float(volume: Volume) -> Volume:
    return volume if volume.array.dtype == np.float32 else volume.with_array(volume.array.astype(np.float32))


def _voxel_mm3(grid: Grid) -> float:
    return float(abs(np.linalg.det(grid.ijk_to_ras[:3, :3])))


def _box_around(mask: NDArray[np.bool_], margin: NDArray[np.int_]) -> tuple[slice, slice, slice] | None:
    """The mask's bounding box, wider by `margin` voxels; None for an empty mask."""
    if not mask.any():
        return None

    def bounds() -> Iterator[slice]:
        for axis in range(3):
            hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
            yield slice(max(0, int(hit[0]) - int(margin[axis])), int(hit[-1]) + 1 + int(margin[axis]))

    k, j, i = bounds()
    return k, j, i


def _distance_mm(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float32]:
    """Of each voxel centre from the nearest one in the mask. SimpleITK, as Slicer's Python has no SciPy."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(length) for length in spacing])
    distance = SimpleITK.SignedMaurerDistanceMap(
        image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    result: NDArray[np.float32] = SimpleITK.GetArrayFromImage(distance)
    return result
