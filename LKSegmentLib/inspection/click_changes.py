"""What each click changed: the mask, the gates, the attention and the logit; as a table and as difference volumes.

Before and after are compared at the same places, each read from the map's voxel that contains it, so that a change of
the gate is not a change of where one looks. The windows may differ from click to click: then only the part that both
saw is compared, on the finer of the two grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.prompts import Point, without_last
from LKSegmentLib.volumes import Grid, Volume

from .click_maps import click_maps
from .maps import Map
from .probe import value_at, values_of
from .tables import Cell, Table
from .taps import recorded

LAYERS = ("near-kernel gate, decoder 1/4", "far-kernel gate, decoder 1/4", "LK attention (mean)")
LOGIT = "logit"

_HEAD = "head"  # the layer of lk_click whose output is the logits
_MASK_COLUMNS = ("click", "kind", "voxels", "gained", "lost", "gained (mm³)", "lost (mm³)")
_SENTENCE = "Shows what changed with the click; that a gate changed is no proof that the mask changed because of it."


def changes(session: ClickModelSession, points: Sequence[Point], layers: Sequence[str] = LAYERS) -> Table:
    """A row for each click or stroke: voxels gained and lost, and the change of gates, attention and logit.

    For each of `layers` and for the logit four columns: "… inside", the mean over the mask after this click; its
    ", change", the same voxels before the click subtracted; "… at the click", the value there; and its ", change".
    A stroke is one row, and "at the click" is its last point. The first click changes everything from nothing, so its
    changes are None; so are those of voxels that the window before did not show.

    Raises:
        InputError: no clicks, a click outside the volume, or a network without these maps.
    """
    if not points:
        raise InputError("What changed with a click needs at least one click.")
    names = (*layers, LOGIT)
    rows: list[tuple[Cell, ...]] = []
    before: _After | None = None
    for count in _ends(points):
        after = _After.of(session, points[:count], layers)
        rows.append(_row(session, points[count - 1], len(rows) + 1, before, after))
        before = after
    columns = ("inside", "inside, change", "at the click", "at the click, change")
    quantities = [f"{name} {column}" for name in names for column in columns]
    passport: dict[str, Any] = {
        "name": "changes by click",
        "model": session.package.manifest.name,
        "network": session.package.manifest.network,
        "operator": "after the click minus before it, at the same voxels: those of the mask after the click, and the "
        "one clicked",
        "kind": "difference",
        "unit": "gates and attention: none (a factor); logit: log odds",
        "neutral": 0.0,
        "sentence": _SENTENCE,
    }
    drawn = ("gained", "lost")
    return Table("changes by click", (*_MASK_COLUMNS, *quantities), tuple(rows), "click", drawn, passport)


def difference_maps(session: ClickModelSession, points: Sequence[Point], layers: Sequence[str] = LAYERS) -> list[Map]:
    """`layers` and the logit after the last click or stroke minus before it, each on a grid that both windows cover.

    Raises:
        InputError: fewer than two clicks, or windows that do not meet.
    """
    earlier = without_last(points)
    if not earlier:
        raise InputError("A difference needs two clicks at least: before the first there is nothing.")
    before = _After.of(session, earlier, layers)
    after = _After.of(session, points, layers)
    return [_difference(before.maps[name], after.maps[name]) for name in (*layers, LOGIT)]


def logit_map(session: ClickModelSession, points: Sequence[Point], logits: NDArray[np.float32]) -> Map:
    """The logits (k, j, i) of the last click's window as a map."""
    window = session.state_for(points).window
    manifest = session.package.manifest
    passport = {
        "name": LOGIT,
        "model": manifest.name,
        "network": manifest.network,
        "layer": _HEAD,
        "operator": "the answer itself: the mask is where it is positive",
        "kind": "logit",
        "unit": "log odds",
        "range": [None, None],
        "neutral": 0.0,
        "identifiable": "yes: it is the answer",
        "native spacing mm": round(window.step, 6),
        "stitching": "none: one window",
        "window step mm": window.step,
    }
    return Map(LOGIT, Volume(logits, window.window_grid.ijk_to_ras), passport)


@dataclass(frozen=True)
class _After:
    """What is known after some clicks: the mask (k, j, i) on the canonical grid, and the maps by name."""

    mask: NDArray[np.bool_]
    maps: dict[str, Map]

    @classmethod
    def of(cls, session: ClickModelSession, points: Sequence[Point], layers: Sequence[str]) -> _After:
        mask = session.state_for(points).mask.full(session.canonical_grid.shape)
        # The answer is known by now, so the network is run once, on the window of the answer.
        with recorded(session.network, [_HEAD]) as outputs:
            maps = {found.name: found for found in click_maps(session, points, layers)}
        logits = outputs[_HEAD][0, 0].float().cpu().numpy()
        return cls(mask, {**maps, LOGIT: logit_map(session, points, logits)})


def _ends(points: Sequence[Point]) -> list[int]:
    """How many points there are after each click and each whole stroke."""
    last = len(points)
    return [count for count in range(1, last + 1) if count == last or not points[count - 1].with_next]


def _row(
    session: ClickModelSession, point: Point, number: int, before: _After | None, after: _After
) -> tuple[Cell, ...]:
    grid = session.canonical_grid
    voxel_mm3 = float(abs(np.linalg.det(grid.ijk_to_ras[:3, :3])))
    old = np.zeros_like(after.mask) if before is None else before.mask
    gained, lost = int((after.mask & ~old).sum()), int((old & ~after.mask).sum())
    cells: list[Cell] = [
        number, "positive" if point.positive else "negative", int(after.mask.sum()), gained, lost,
        gained * voxel_mm3, lost * voxel_mm3,
    ]  # fmt: skip
    places = grid.ras_of(np.argwhere(after.mask)[:, ::-1])
    for name, found in after.maps.items():
        inside, at_click = values_of(found, places), value_at(found, point.ras)
        cells += [_mean(inside), None]
        if before is not None:
            cells[-1] = _mean(inside - values_of(before.maps[name], places))
        earlier = value_at(before.maps[name], point.ras) if before is not None else None
        cells += [at_click, None if earlier is None or at_click is None else at_click - earlier]
    return tuple(cells)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _difference(before: Map, after: Map) -> Map:
    same = before.volume.grid.matches(after.volume.grid)
    fine = before if before.volume.spacing < after.volume.spacing else after
    grid = after.volume.grid if same else _common(fine.volume.grid, (before if fine is after else after).volume.grid)
    k, j, i = np.indices(grid.shape)
    places = grid.ras_of(np.stack((i, j, k), -1).reshape(-1, 3))
    change = (values_of(after, places) - values_of(before, places)).reshape(grid.shape)
    name = f"{after.name}: change by the last click"
    low, high = after.passport["range"]
    passport = {
        **after.passport,
        "name": name,
        "operator": f"after the last click minus before it, of: {after.passport['operator']}",
        "kind": "difference",
        "range": [None, None] if low is None or high is None else [low - high, high - low],
        "neutral": 0.0,
        "sentence": _SENTENCE,
        "windows": "the same before and after"
        if same
        else "different before and after: the part that both show, on the finer grid, nothing interpolated",
        "native shape (k, j, i)": list(grid.shape),
    }
    return Map(name, Volume(change.astype(np.float32), grid.ijk_to_ras), passport)


def _common(fine: Grid, other: Grid) -> Grid:
    """The voxels of `fine` whose centres lie in `other`, a box: windows of one volume share their axes."""
    corners = fine.ijk_of(other.ras_of([(-0.5,) * 3, [size - 0.5 for size in other.shape[::-1]]]))
    low = np.clip(np.ceil(corners.min(0) - 1e-6), 0, None).astype(int)[::-1]
    high = np.clip(np.floor(corners.max(0) + 1e-6) + 1, None, fine.shape[::-1]).astype(int)[::-1]
    if (high <= low).any():
        raise InputError("The windows before and after the last click do not meet: there is nothing to compare.")
    return fine.cropped(low.tolist(), high.tolist())
