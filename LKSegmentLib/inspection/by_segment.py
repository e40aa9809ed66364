"""What a map is inside each segment, in a shell around it, and elsewhere. Needs no torch: the panel shows it.

Map and labels lie on different grids, oblique or not, coarse or fine. Both are read on the grid of the two whose voxels
are smaller, each place taking the value of the other's voxel that contains it. So nothing is interpolated, neither
labels nor gates; a segment smaller than a voxel of the map still has a value; and as all the places stand for the
same volume, a mean over them is a mean over millimetres, however anisotropic the voxels are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_INSIDE, _SHELL = 1, 2
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
    placed = [found for found in maps if has_place(found)]
    segments = _segments(labels, named, shell_mm)
    # Map by map, as each is read once and may be large; the rows go segment by segment.
    cells = [_Reading(found, labels).cells(segments) for found in placed]
    rows = [(segment.name, *of_map[number]) for number, segment in enumerate(segments) for of_map in cells]
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


@dataclass(frozen=True)
class _Segment:
    """A segment and its shell: `codes` uint8 (k, j, i) in `box` of the labels' grid, 0 outside of both."""

    name: str
    voxels: int
    box: tuple[slice, slice, slice]
    codes: NDArray[np.uint8]


def _segments(labels: Volume, named: Mapping[int, str], shell_mm: float) -> list[_Segment]:
    margin = np.ceil(shell_mm / np.array(labels.spacing[::-1])).astype(int)
    slices = _slices_of(labels.array)
    found = []
    for value, name in named.items():
        box = _box_around(labels.array, value, slices.get(value), margin)
        inside = labels.array[box] == value
        codes = np.zeros(inside.shape, np.uint8)
        if inside.any():
            codes[_distance_mm(inside, labels.spacing) <= shell_mm + _TIE_MM] = _SHELL
            codes[inside] = _INSIDE
        found.append(_Segment(name, int(inside.sum()), box, codes))
    return found


class _Reading:
    """A map and the labels' grid, read at the same places, each of which stands for so many mm³."""

    def __init__(self, found: Map, labels: Volume) -> None:
        self._map, self._labels = found, labels.grid
        of_map, of_labels = _voxel_mm3(found.volume.grid), _voxel_mm3(labels.grid)
        self._on_labels = of_labels <= of_map
        if self._on_labels:
            values = resample(_as_float(found.volume), labels.grid, "nearest", fill=float("nan")).array
            self._mm3, covered = of_labels, np.isfinite(values)
        else:
            values = found.volume.array
            everywhere = Volume(np.ones(labels.grid.shape, np.uint8), labels.ijk_to_ras)
            within = resample(everywhere, found.volume.grid, "nearest", fill=0).array != 0
            self._mm3, covered = of_map, np.isfinite(values) & within
        self._values, self._covered = values, covered
        self._count = int(covered.sum())
        self._sum = float(values.sum(where=covered, dtype=np.float64))

    def cells(self, segments: Sequence[_Segment]) -> list[tuple[Cell, ...]]:
        """Of each segment what comes after its name in `COLUMNS`."""
        return [self._cells(segment) for segment in segments]

    def _cells(self, segment: _Segment) -> tuple[Cell, ...]:
        values, covered, codes = self._there(segment)
        counts, sums = [], []
        for part in (_INSIDE, _SHELL):
            there = covered & (codes == part)
            counts.append(int(there.sum()))
            sums.append(float(values.sum(where=there, dtype=np.float64)))
        counts.append(self._count - sum(counts))
        sums.append(self._sum - sum(sums))
        means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
        millilitres = counts[0] * self._mm3 / 1000
        whole = segment.voxels * _voxel_mm3(self._labels) / 1000
        share = min(100.0, 100 * millilitres / whole) if whole else None
        return (self._map.name, *means, str(self._map.passport.get("unit", "")), *counts, millilitres, share)

    def _there(self, segment: _Segment) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
        """Values, which of them count, and the segment's codes, all on one grid around the segment."""
        if self._on_labels:
            return self._values[segment.box], self._covered[segment.box], segment.codes
        lower, upper = [part.start for part in segment.box], [part.stop for part in segment.box]
        codes = Volume(segment.codes, self._labels.cropped(lower, upper).ijk_to_ras)
        return self._values, self._covered, resample(codes, self._map.volume.grid, "nearest", fill=0).array


def _as_float(volume: Volume) -> Volume:
    return volume if volume.array.dtype == np.float32 else volume.with_array(volume.array.astype(np.float32))


def _voxel_mm3(grid: Grid) -> float:
    return float(abs(np.linalg.det(grid.ijk_to_ras[:3, :3])))


def _slices_of(labels: NDArray[Any]) -> dict[int, tuple[int, int]]:
    """First and last slice k of each label, in one pass over a volume that may be large."""
    found: dict[int, tuple[int, int]] = {}
    for k, plane in enumerate(labels):
        for value in np.unique(plane).tolist():
            found[int(value)] = (found.get(int(value), (k, k))[0], k)
    return found


def _box_around(
    labels: NDArray[Any], value: int, slices: tuple[int, int] | None, margin: NDArray[np.int_]
) -> tuple[slice, slice, slice]:
    """The bounding box of a label, wider by `margin` voxels; of one that is not there, the first voxel."""
    if slices is None:
        return slice(0, 1), slice(0, 1), slice(0, 1)
    part = labels[slices[0] : slices[1] + 1] == value
    bounds = [slices]
    for axis in (1, 2):
        hit = np.flatnonzero(part.any(axis=tuple(other for other in range(3) if other != axis)))
        bounds.append((int(hit[0]), int(hit[-1])))
    k, j, i = (
        slice(max(0, low - int(wide)), min(size, high + 1 + int(wide)))
        for (low, high), wide, size in zip(bounds, margin, labels.shape, strict=True)
    )
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
