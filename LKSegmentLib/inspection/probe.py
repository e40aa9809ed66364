"""The value of every recorded map at one place, layer by layer. Needs no torch: the panel reads it at the crosshair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError

from .maps import Map
from .tables import Cell, Table

COLUMNS = ("number", "map", "value", "unit", "neutral value", "voxel (mm)", "layer")

_TIE = 1e-6  # voxels: grids are often nested, so that places lie half way between voxels, up to rounding


def values_at(maps: Sequence[Map], ras: Sequence[float]) -> Table:
    """A row for each map, in their order: the raw value of the map's voxel that contains a place.

    Nothing is interpolated: a coarse map has one value for a block of image voxels, and "voxel (mm)" says how large
    that block is, along the map's i, j and k.

    Args:
        maps: of one inspection; numbered from 1 in this order, which is the x of the curve.
        ras: the place, (r, a, s) mm.

    Returns:
        The columns `COLUMNS`, and where the maps have several units one more for each, "value (UNIT)", so that a curve
        joins what compares. The value is None where the place is outside the map, where the map has no number, and for
        a kernel, which has no place in the image.

    Raises:
        InputError: a place that is not three finite numbers.
    """
    place = np.asarray(ras, dtype=np.float64)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise InputError(f"A place is three numbers, R, A and S in mm, not {ras!r:.100}.")
    rows = [_row(number, found, place) for number, found in enumerate(maps, start=1)]
    units = list(dict.fromkeys(str(row[COLUMNS.index("unit")]) for row in rows))
    drawn: tuple[str, ...] = ("value",)
    if len(units) > 1:
        drawn = tuple(f"value ({unit or 'no unit told'})" for unit in units)
        rows = [(*row, *(row[2] if row[3] == unit else None for unit in units)) for row in rows]
    words = ", ".join(f"{value:g}" for value in place)
    passport: dict[str, Any] = {
        "name": f"values at RAS ({words}) mm",
        "operator": "the raw value of the voxel that contains the place; nothing is interpolated",
        "kind": "probe",
        "unit": "of each map its own: values of different maps compare only where unit and layer agree",
        "place RAS mm": [float(value) for value in place],
    }
    columns = COLUMNS if len(units) < 2 else (*COLUMNS, *drawn)
    return Table(str(passport["name"]), columns, tuple(rows), "number", drawn, passport)


def has_place(found: Map) -> bool:
    """Whether a map lies over the image; a picture of a kernel lies in a space of its own around RAS 0."""
    return found.passport.get("space") != "kernel"


def value_at(found: Map, ras: Sequence[float]) -> float | None:
    """The raw value of the map's voxel that contains a place (r, a, s) mm; None outside it, or for no number."""
    value = float(values_of(found, np.asarray(ras, dtype=np.float64)[np.newaxis])[0])
    return value if np.isfinite(value) else None


def values_of(found: Map, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The raw values of the map's voxels that contain the places (n, 3), RAS mm; NaN outside the map."""
    grid = found.volume.grid
    values = np.full(len(places), np.nan)
    if len(places):
        continuous = grid.ijk_of(places)
        size = np.array(grid.shape[::-1])
        inside = ((continuous >= -0.5 - _TIE) & (continuous <= size - 0.5 + _TIE)).all(axis=1)
        # A place half way between two voxels belongs to the later one; half a voxel beyond the last is still the last.
        index = np.floor(continuous[inside] + 0.5 + _TIE).astype(int)
        i, j, k = np.clip(index, 0, size - 1).T
        values[inside] = found.volume.array[k, j, i]
    return values


def _row(number: int, found: Map, place: NDArray[np.float64]) -> tuple[Cell, ...]:
    passport = found.passport
    neutral = passport.get("neutral")
    return (
        number,
        found.name,
        value_at(found, place.tolist()) if has_place(found) else None,
        str(passport.get("unit", "")),
        neutral if isinstance(neutral, (int, float)) else None,
        " x ".join(f"{length:.3g}" for length in found.volume.spacing),
        str(passport.get("layer", "")),
    )
