"""Boxes, scribbles and lassos, told to the click model as points that belong together.

The click model knows points. A stroke of any kind becomes a few of them, answered by one mask: every point but the last
says that the next one belongs to it (`Point.with_next`). The trainer draws boxes and scribbles in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Grid

from .points import Point

Triple = Sequence[float]

_MOST = 7  # points of a scribble
_MARGIN = 0.04  # of a box's longest edge: how far outside of its faces "outside" is meant
_AROUND = 6  # points outside of a lasso
_WITHIN = 5  # points inside of it
_RASTER = 96  # pixels along a lasso's longest side, for finding places inside and outside of it


def box(first: Triple, second: Triple, grid: Grid, inside: Triple | None = None) -> tuple[Point, ...]:
    """A structure that fills the box between two opposite corners (r, a, s), mm, sides along R, A and S.

    Args:
        first, second: the corners.
        grid: of the volume; faces that lie outside of it say nothing.
        inside: a place in the structure; None: the middle of the box.

    Raises:
        InputError: a box without extent, or a place that is not inside of it and of the volume.
    """
    corners = np.array([_triple(first), _triple(second)])
    low, high = corners.min(0), corners.max(0)
    if (high <= low).any():
        raise InputError("The two corners of a box differ along R, A and S; these do not. Drag the box over a volume.")
    middle = (low + high) / 2
    seed = middle if inside is None else np.array(_triple(inside))
    if (seed < low).any() or (seed > high).any() or not grid.contains(seed):
        raise InputError("The place in the structure must lie in the box and in the volume.")
    margin = _MARGIN * float((high - low).max())
    faces = []
    for axis in range(3):
        for place in (low[axis] - margin, high[axis] + margin):
            face = middle.copy()
            face[axis] = place
            faces.append(face)
    return _stroke([seed], [face for face in faces if grid.contains(face)])


def scribble(path: Sequence[Triple], positive: bool = True) -> tuple[Point, ...]:
    """A line drawn over what belongs to the structure, or (not ``positive``) over what does not; (r, a, s), mm.

    At most seven points, evenly along it. Raises InputError for a line without points.
    """
    places = np.array([_triple(place) for place in path])
    if not len(places):
        raise InputError("A scribble has at least one point; this one has none.")
    length = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))))
    count = min(_MOST, len(places)) if length[-1] > 0 else 1
    at = np.linspace(0, length[-1], count) if count > 1 else np.zeros(1)
    even = np.stack([np.interp(at, length, places[:, axis]) for axis in range(3)], -1)
    return _stroke(list(even), []) if positive else _stroke([], list(even))


def lasso(contour: Sequence[Triple], grid: Grid) -> tuple[Point, ...]:
    """A closed line drawn around the structure on one slice; (r, a, s), mm, three points or more.

    The places inside and outside are found in the plane that fits the line best.

    Raises:
        InputError: fewer than three points, points on one straight line, or a line around nothing of the volume.
    """
    from scipy import ndimage

    places = np.array([_triple(place) for place in contour])
    if len(places) < 3:
        raise InputError(f"A lasso has at least three points; this one has {len(places)}.")
    origin = places.mean(0)
    _, spread, axes = np.linalg.svd(places - origin, full_matrices=False)
    if spread[1] <= 1e-3 * spread[0]:
        raise InputError("The points of the lasso lie on one line and enclose nothing. Draw around the structure.")
    flat = (places - origin) @ axes[:2].T
    low, extent = flat.min(0), float(np.ptp(flat, axis=0).max())
    pixel = extent / _RASTER
    border = _RASTER // 8
    mask = _filled((flat - low) / pixel + border, _RASTER + 2 * border + 1)
    if not mask.any():
        raise InputError("The lasso encloses nothing. Draw around the structure.")

    def place_of(pixels: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.asarray(origin + ((pixels - border) * pixel + low) @ axes[:2])

    depth = ndimage.distance_transform_edt(mask)
    deepest = np.unravel_index(depth.argmax(), depth.shape)
    within = _spread_out(np.argwhere(depth >= 0.35 * depth.max()), deepest, _WITHIN)
    height = ndimage.distance_transform_edt(~mask)
    margin = 0.06 * _RASTER
    ring = np.argwhere((height > margin) & (height < margin + 1.5))
    around = _spread_out(ring, tuple(ring[0]), _AROUND)
    inside = [place for place in place_of(within) if grid.contains(place)]
    if not inside:
        raise InputError("The lasso encloses nothing of the volume. Draw around the structure.")
    return _stroke(inside, [place for place in place_of(around) if grid.contains(place)])


def _filled(polygon: NDArray[np.float64], edge: int) -> NDArray[np.bool_]:
    """The pixels (edge, edge) whose centres lie inside of a closed polygon (n, 2), by the even-odd rule."""
    rows, columns = np.meshgrid(np.arange(edge), np.arange(edge), indexing="ij")
    crossed = np.zeros((edge, edge), np.bool_)
    for (row, column), (next_row, next_column) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if row == next_row:
            continue
        between = (row > rows) != (next_row > rows)
        crossed ^= between & (columns < column + (rows - row) * (next_column - column) / (next_row - row))
    return crossed


def _spread_out(candidates: NDArray[np.intp], first: tuple[np.intp, ...], count: int) -> NDArray[np.intp]:
    """``count`` of the candidates (n, 2), each as far as possible from those before it, ``first`` first."""
    chosen = [np.array(first)]
    distance = np.linalg.norm(candidates - chosen[0], axis=1)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(candidates[int(distance.argmax())])
        distance = np.minimum(distance, np.linalg.norm(candidates - chosen[-1], axis=1))
    return np.array(chosen)


def _stroke(inside: Sequence[NDArray[np.float64]], outside: Sequence[NDArray[np.float64]]) -> tuple[Point, ...]:
    both = [(place, True) for place in inside] + [(place, False) for place in outside]
    last = len(both) - 1
    return tuple(Point(_triple(place), positive, index < last) for index, (place, positive) in enumerate(both))


def _triple(place: Any) -> tuple[float, float, float]:
    return Point(place).ras
