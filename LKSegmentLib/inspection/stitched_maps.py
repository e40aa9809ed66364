"""Finished maps of a whole volume, with their passports and their companions of disagreement."""

from __future__ import annotations

from typing import Any

import numpy as np

from LKSegmentLib.inference.windows import WindowLayout
from LKSegmentLib.packages import Manifest
from LKSegmentLib.volumes import Grid, Volume

from .exposed import Chosen
from .map_storage import Float
from .maps import SENTENCE, WINDOW_VALUES, Map
from .stitching import StitchedMap, WindowMap

_LISTED_WINDOWS = 64  # in a passport
_SUMMARISED = 2**24  # voxels that percentiles are taken from


def maps_of(
    chosen: Chosen, stitched: StitchedMap | WindowMap, layout: WindowLayout, working: Grid, manifest: Manifest
) -> list[Map]:
    """The map of a quantity over the volume and, where windows overlap, "NAME: window disagreement" beside it.

    Args:
        chosen: the quantity.
        stitched: what was gathered of it; spent afterwards.
        layout: the windows over the volume.
        working: the grid that their voxels belong to.
        manifest: of the model.
    """
    grid = stitched.lattice.grid(working)
    passport = _passport(chosen, stitched, layout, working, manifest)
    if isinstance(stitched, WindowMap):
        values = stitched.finished()
        listed = [{"first voxel (k, j, i)": list(lower), "value": value} for lower, value in stitched.values]
        passport[WINDOW_VALUES] = listed[:_LISTED_WINDOWS]
        if len(listed) > _LISTED_WINDOWS:
            passport["values of windows left out"] = len(listed) - _LISTED_WINDOWS
        return [Map(chosen.name, Volume(values, grid.ijk_to_ras), passport)]
    values, disagreement = stitched.finished()
    if layout.count == 1:
        return [Map(chosen.name, Volume(values, grid.ijk_to_ras), passport)]
    companion = f"{chosen.name}: window disagreement"
    passport["disagreement"] = {"map": companion, **_summary(disagreement)}
    other = {
        **passport,
        "name": companion,
        "operator": "weighted standard deviation, over the windows that see a voxel, of: " + str(passport["operator"]),
        "kind": "disagreement of windows",
        "range": [0.0, None],
        "neutral": None,
        "identifiable": "yes; where it is large, the map tells of the window and not of the image",
    }
    del other["disagreement"]
    return [
        Map(chosen.name, Volume(values, grid.ijk_to_ras), passport),
        Map(companion, Volume(disagreement, grid.ijk_to_ras), other),
    ]


def _passport(
    chosen: Chosen, stitched: StitchedMap | WindowMap, layout: WindowLayout, working: Grid, manifest: Manifest
) -> dict[str, Any]:
    entry, lattice = chosen.exposed, stitched.lattice
    passport: dict[str, Any] = {
        "name": chosen.name,
        "model": manifest.name,
        "network": manifest.network,
        "layer": ", ".join(entry.layers),
        "sentence": SENTENCE,
        **entry.meaning,
        "window (k, j, i)": list(layout.size),
        "windows": layout.count,
        "working spacing mm": [round(length, 6) for length in working.spacing],
        "map spacing mm": [round(length, 6) for length in lattice.grid(working).spacing],
        "map shape (k, j, i)": list(lattice.shape),
    }
    if entry.channels > 1:
        passport["channel"] = f"mean of {entry.channels}" if chosen.channel is None else chosen.channel
    if isinstance(stitched, WindowMap):
        passport["native grid"] = "none: one number for each window"
        passport["stitching"] = "none: every voxel shows the number of the window that weighs most there"
        passport["disagreement"] = "not measured: nothing is averaged"
        return passport
    passport["native stride (working voxels)"] = entry.stride
    passport["native spacing mm"] = [round(length * entry.stride, 6) for length in working.spacing]
    passport["first voxel centred at (window voxels)"] = entry.offset
    passport["stitching"] = "none: one window"
    passport["disagreement"] = "none: one window"
    if layout.count > 1:
        repeated = "" if set(lattice.steps) == {entry.stride} else "; voxels repeated where windows do not meet on them"
        passport["stitching"] = f"mean over windows with the segmentation's Gaussian weights{repeated}"
    return passport


def _summary(values: Float) -> dict[str, float]:
    """Percentiles; of a large map from voxels evenly spread over it, as it may be larger than the memory."""
    every = -(-values.size // _SUMMARISED)
    middle, high = (float(value) for value in np.percentile(values.reshape(-1)[::every], (50, 95)))
    return {"median": middle, "95 percent below": high}
