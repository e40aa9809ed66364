"""Numbers that belong to a slice and have no place within it: kernel weights and attention, as tables.

They are stitched along the slice axis as the segmentation is along k. Windows that lie side by side each pool over
their own part of a slice: their mean is told, and beside it how far they are apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from LKSegmentLib.inference.windows import Window, WindowLayout
from LKSegmentLib.packages import Manifest
from LKSegmentLib.volumes import Grid

from .exposed import Chosen, Exposed
from .map_storage import Float
from .stitching import AxisLattice
from .tables import Cell, Table

LISTED_WINDOWS = 64  # of quantities that are listed window by window
SENTENCE = "One number for a whole slice of a window: it tells nothing of a place within the slice."
PLACE = ("slice", "along the slice axis (mm)", "R (mm)", "A (mm)", "S (mm)")


class SliceRecord:
    """Gathers (channels, slices) of every window and gives one table of the whole volume.

    Args:
        entry: a quantity of extent "slices".
        layout: the windows over the volume; slices lie along k.
        working: the grid that their voxels belong to.
        manifest: of the model, named in the passport.
    """

    def __init__(
        self, entry: Exposed | Chosen, layout: WindowLayout, working: Grid, manifest: Manifest | None = None
    ) -> None:
        self._entry = entry.exposed if isinstance(entry, Chosen) else entry
        self._layout, self._working, self._manifest = layout, working, manifest
        self._axis = AxisLattice.of(
            layout.starts[0], layout.shape[0], layout.weights[0], self._entry.stride, self._entry.offset
        )
        shape = (len(self._entry.columns), self._axis.count)
        self._mean, self._squares = np.zeros(shape), np.zeros(shape)
        self._weight = np.zeros(self._axis.count)
        self._seen = np.zeros(self._axis.count, int)
        self._apart: list[tuple[Window, Float]] = []
        self._left_out = 0

    def add(self, window: Window, value: Float, logits: Tensor | None = None) -> None:
        """Add the numbers (channels, slices) of a window."""
        if self._entry.apart:
            if len(self._apart) < LISTED_WINDOWS:
                self._apart.append((window, value.copy()))
            else:
                self._left_out += 1
            return
        part = self._axis.part(window.lower[0], value.shape[1])
        here = value[:, part.source].astype(np.float64)
        place = part.target
        self._weight[place] += part.weight
        difference = here - self._mean[:, place]
        self._mean[:, place] += difference * (part.weight / self._weight[place])
        self._squares[:, place] += part.weight * difference * (here - self._mean[:, place])
        self._seen[place] += 1

    def finished(self) -> Table:
        """The table: a row for each slice, with its place, and a column for each channel."""
        return self._by_window() if self._entry.apart else self._stitched()

    def _stitched(self) -> Table:
        entry = self._entry
        columns: tuple[str, ...] = (*PLACE, *entry.columns)
        values: NDArray[np.float64] = self._mean
        several = bool((self._seen > 1).any())
        if several:
            columns += tuple(f"{name}: spread over windows" for name in entry.columns)
            values = np.concatenate((values, np.sqrt(np.maximum(self._squares / self._weight, 0))))
        centres = self._axis.origin + self._axis.step * np.arange(self._axis.count)
        rows = tuple(
            (number, *self._place(centre), *(float(value) for value in values[:, number]))
            for number, centre in enumerate(centres)
        )
        stitching = "none: one window sees each slice"
        if several:
            stitching = (
                "mean over the windows that see a slice, with the segmentation's weights along k; the spread is the "
                "weighted standard deviation between them"
            )
        return Table(entry.name, columns, rows, PLACE[1], entry.drawn or entry.columns, self._passport(stitching))

    def _by_window(self) -> Table:
        entry = self._entry
        slices = max((value.shape[0] for _, value in self._apart), default=0)
        names = entry.columns or tuple(f"from slice {number}" for number in range(slices))
        rows: list[tuple[Cell, ...]] = []
        for window, value in self._apart:
            for number in range(value.shape[1]):
                centre = window.lower[0] + entry.offset + entry.stride * number
                numbers = (float(one) for one in value[:, number])
                rows.append((window.index, *window.lower, number, *self._place(centre), *numbers))
        columns = ("window", "first voxel k", "first voxel j", "first voxel i", *PLACE, *names)
        passport = self._passport("none: the windows are listed one after the other")
        if self._left_out:
            passport["windows left out"] = self._left_out
        return Table(entry.name, columns, tuple(rows), None, (), passport)

    def _place(self, k: float) -> tuple[float, float, float, float]:
        """Millimetres along the slice axis (RAS along it, 0 at the RAS origin) and the slice's centre in RAS."""
        _, height, width = self._layout.shape
        centre = self._working.ras_of(((width - 1) / 2, (height - 1) / 2, k))
        along = float(centre @ self._working.directions[:, 2])
        return (round(along, 4), *(round(float(value), 4) for value in centre))  # type: ignore[return-value]

    def _passport(self, stitching: str) -> dict[str, Any]:
        entry = self._entry
        passport: dict[str, Any] = {"name": entry.name}
        if self._manifest is not None:
            passport |= {"model": self._manifest.name, "network": self._manifest.network}
        return passport | {
            "layer": ", ".join(entry.layers),
            **entry.meaning,
            "sentence": SENTENCE,
            "window (k, j, i)": list(self._layout.size),
            "windows": self._layout.count,
            "native stride (working voxels)": entry.stride,
            "slice spacing mm": round(float(self._working.spacing[2]) * (self._axis.step), 6),
            "stitching": stitching,
        }
