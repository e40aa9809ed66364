"""Numbers that hold for a whole window, as tables: a row a window, and a row a block of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from LKSegmentLib.inference.windows import WindowLayout
from LKSegmentLib.packages import Manifest
from LKSegmentLib.volumes import Grid

from .exposed import Chosen
from .stitching import WindowMap
from .tables import Cell, Table

SENTENCE = "One number for a whole window: it tells nothing of a place within it, nor of any other window."


def window_tables(
    pooled: Sequence[tuple[Chosen, WindowMap]],
    layout: WindowLayout,
    working: Grid,
    manifest: Manifest | None = None,
) -> list[Table]:
    """The tables of what was pooled over windows; none when nothing was.

    Args:
        pooled: quantities of extent "window" and what was recorded of them.
        layout: the windows over the volume.
        working: the grid that their voxels belong to.
        manifest: of the model, named in the passports.

    Returns:
        "numbers by window": a row for each window, with its place, and a column for each quantity; and
        "numbers by block": a row for each quantity: its mean over the windows and how far they are apart.
    """
    if not pooled:
        return []
    return [_by_window(pooled, layout, working, manifest), _by_block(pooled, manifest)]


def _by_window(
    pooled: Sequence[tuple[Chosen, WindowMap]], layout: WindowLayout, working: Grid, manifest: Manifest | None
) -> Table:
    values = [dict(record.values) for _, record in pooled]
    half = (np.array(layout.size) - 1) / 2
    rows: list[tuple[Cell, ...]] = []
    for number, lower in enumerate(dict.fromkeys(lower for one in values for lower in one)):
        centre = (round(float(value), 3) for value in working.ras_of((np.array(lower) + half)[::-1]))
        rows.append((number, *lower, *centre, *(one.get(lower) for one in values)))
    place = ("window", "first voxel k", "first voxel j", "first voxel i", "R (mm)", "A (mm)", "S (mm)")
    names = tuple(chosen.name for chosen, _ in pooled)
    return Table("numbers by window", (*place, *names), tuple(rows), "window", names, _passport(pooled, manifest))


def _by_block(pooled: Sequence[tuple[Chosen, WindowMap]], manifest: Manifest | None) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for number, (chosen, record) in enumerate(pooled):
        values = np.array([value for _, value in record.values])
        neutral = chosen.exposed.meaning.get("neutral")
        spread = (float(values.mean()), float(values.std()), float(values.min()), float(values.max()))
        rows.append((number, chosen.name, *spread, neutral, len(values)))
    columns = ("number", "quantity", "mean", "standard deviation", "least", "largest", "neutral value", "windows")
    return Table("numbers by block", columns, tuple(rows), "number", ("mean",), _passport(pooled, manifest))


def _passport(pooled: Sequence[tuple[Chosen, WindowMap]], manifest: Manifest | None) -> dict[str, Any]:
    passport: dict[str, Any] = {"kind": "native gate, pooled", "sentence": SENTENCE}
    if manifest is not None:
        passport |= {"model": manifest.name, "network": manifest.network}
    passport["columns"] = {
        chosen.name: {key: chosen.exposed.meaning[key] for key in ("operator", "unit", "range", "identifiable")}
        for chosen, _ in pooled
    }
    passport["stitching"] = "none: windows are told apart"
    return passport
