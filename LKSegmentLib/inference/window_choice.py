"""Where a click session looks: the window's place and scale, which a click does not tell.

A click on a vertebra may mean the vertebra, its marrow or the spine, and at every scale the network finds something.
For the first click windows of several scales are looked at, and the answer is taken that holds when the scale changes:
what has a border of its own is found in two neighbouring windows. Extents that people seldom mean, a whole body or a
speck, must be found the more clearly. From the second click on, mask and clicks tell the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.volumes import Grid, MaskBox

from .click_window import ClickWindow
from .looks import Look, agreement

Place = NDArray[np.float64]  # (k, j, i) in voxels of the volume

_RATIO = 1.5  # between the scales that are looked at, at most
_USUAL = 50.0  # mm; extent of a structure that people click on, unless the volume makes it implausible:
_LEAST_SHARE, _LARGEST_SHARE = 0.15, 0.6  # of the volume's longest edge
_CUT_OUT = 2.5  # usual extents that a volume of a single structure is long at most
_WIDEST, _CLOSEST = 5.0, 0.5  # edges of the windows looked at first, in usual extents
_WIDEST_AROUND_A_BOX = 2.25
_AROUND_A_STROKE = 1.2  # edge of the closest window, in extents of the stroke
_COST_OF_RUNNING_OUT = 0.5
_COST_OF_SIZE = 0.2  # for an extent e times the usual one, or an e-th of it
_SHARE_OF_AGREEMENT, _COST_OF_SIZE_JUDGED = 0.2, 0.03  # beside the Dice that a network itself expects
_THE_SAME = 0.7  # agreement from which on two masks are one answer, seen more or less closely
_MARGIN = 1.5  # a window is this much wider than the mask and the click it is laid around
_SAME = 1.25  # ratio of scales up to which the last window still serves
_BORDER = 6 / 64  # of the window's edge; a click lies farther inside than this
_FINER = 4  # times finer than the voxels a window may be


class WindowChoice:
    """Windows of ``edge``³ voxels over a volume's ``grid``."""

    def __init__(self, grid: Grid, edge: int) -> None:
        self._grid = grid
        self._edge = edge
        self._spacing = np.array(grid.spacing[::-1])
        longest = float((np.array(grid.shape) * self._spacing).max())
        self._widest_step = longest / edge  # one window shows the whole volume
        # Finer than the voxels where a structure is small: the network is best where it fills the window.
        self._finest_step = min(float(np.median(grid.spacing)) / _FINER, self._widest_step)
        self._usual = float(np.clip(_USUAL, _LEAST_SHARE * longest, _LARGEST_SHARE * longest))
        self._is_cut_out = longest <= _CUT_OUT * self._usual

    def around(self, centre: Place, step: float) -> ClickWindow:
        """A window near ``centre`` that does not hang out of the volume more than it must."""
        step = float(np.clip(step, self._finest_step, self._widest_step))
        size = np.array(self._grid.shape, float)
        half = self._edge / 2 * step / self._spacing
        low, high = half - 0.5, size - 0.5 - half
        inside = np.where(low > high, (size - 1) / 2, np.clip(centre, np.minimum(low, high), np.maximum(low, high)))
        k, j, i = (float(value) for value in inside)
        return ClickWindow(self._grid, (k, j, i), step, self._edge)

    def usual_extent(self, clicks: Sequence[Place], positive: Sequence[bool]) -> float:
        """Extent in mm that a structure has most likely: as clicks on both sides of its border tell, else the usual."""
        low, high = self._bounds(clicks, positive)
        span = float(((high - low) * self._spacing).max())
        return max(span, self._finest_step) if not all(positive) else max(span, self._usual)

    def for_first_clicks(self, clicks: Sequence[Place], positive: Sequence[bool]) -> list[ClickWindow]:
        """Windows around a click, or around the points of a stroke, from wide to close.

        The right scale is to be found among them; a box or a lasso tells it nearly.
        """
        low, high = self._bounds(clicks, positive)
        span = float(((high - low) * self._spacing).max())
        usual = self.usual_extent(clicks, positive)
        widest = (_WIDEST if all(positive) else _WIDEST_AROUND_A_BOX) * usual
        closest = max(_CLOSEST * usual if all(positive) else 0.0, _AROUND_A_STROKE * span)
        first = min(self._widest_step, widest / self._edge)
        last = min(first, max(self._finest_step, closest / self._edge))
        # Evenly, so that neighbours can agree equally well everywhere.
        count = 1 + int(np.ceil(np.log(first / last) / np.log(_RATIO) - 1e-6))
        return [self.around((low + high) / 2, float(step)) for step in np.geomspace(first, last, count)]

    def _bounds(self, clicks: Sequence[Place], positive: Sequence[bool]) -> tuple[Place, Place]:
        """The lowest and the highest place, in voxels, of clicks; of a box or a lasso also where the volume cuts it.

        A box that the volume cuts has no face there: it is taken to go on as far as on the other side of its middle.
        """
        places = np.asarray(clicks, float)
        low, high = places.min(0), places.max(0)
        if all(positive):
            return low, high
        middle = places[np.asarray(positive)].mean(0)
        low, high = np.minimum(low, 2 * middle - high), np.maximum(high, 2 * middle - low)
        last = np.array(self._grid.shape) - 1.0
        return np.clip(low, 0, last), np.clip(high, 0, last)

    def most_plausible(self, looks: Sequence[Look], usual: float) -> Look:
        """Of the looks at windows of :meth:`for_first_clicks`, in their order, the one to believe.

        ``usual`` is the extent in mm that is expected, :meth:`usual_extent`.
        """
        # A volume hardly larger than a structure was cut out for one, so its widest window needs no wider witness.
        witness = float(self._is_cut_out and looks[0].window.covers_volume)
        agreements = [witness, *(agreement(*pair) for pair in zip(looks, looks[1:], strict=False)), 0.0]
        held = [(before + after) / 2 for before, after in zip(agreements, agreements[1:], strict=False)]
        unlikeness = [np.log(max(look.extent, look.window.step) / usual) ** 2 for look in looks]
        if all(look.judged is not None for look in looks):
            worth = [
                look.expected_dice + _SHARE_OF_AGREEMENT * agrees - _COST_OF_SIZE_JUDGED * unlikely
                for look, agrees, unlikely in zip(looks, held, unlikeness, strict=True)
            ]
            return looks[int(np.argmax(worth))]
        scores = [
            agrees - _COST_OF_RUNNING_OUT * look.runs_out - _COST_OF_SIZE * unlikely
            for look, agrees, unlikely in zip(looks, held, unlikeness, strict=True)
        ]
        chosen = int(np.argmax(scores))
        while chosen + 1 < len(looks) and agreements[chosen + 1] >= _THE_SAME and not looks[chosen + 1].runs_out:
            if _MARGIN * looks[chosen].extent >= self._edge * looks[chosen].window.step:
                break
            chosen += 1  # the same answer, seen more closely
        return looks[chosen]

    def for_correction(self, clicks: Sequence[Place], mask: MaskBox, last: ClickWindow) -> list[ClickWindow]:
        """The window around the mask and the new clicks, or the last one where it still serves.

        Where it is wider than the last one, also one of the last scale, moved to the clicks, if they fit into it: the
        surer answer of the two is the better one.
        """
        new_low, new_high = np.min(clicks, axis=0), np.max(clicks, axis=0)
        low, high = new_low, new_high
        if mask.array.size:
            low = np.minimum(low, mask.lower)
            high = np.maximum(high, np.add(mask.lower, mask.array.shape) - 1)
        extent = float(((high - low + 1) * self._spacing).max())
        step = float(np.clip(_MARGIN * extent / self._edge, self._finest_step, self._widest_step))
        if 1 / _SAME <= last.step / step <= _SAME and self._moved_to(new_low, new_high, last) == last:
            return [last]
        windows = [self._moved_to(new_low, new_high, self.around((low + high) / 2, step))]
        if step > last.step * _SAME:
            moved = self._moved_to(new_low, new_high, last)
            shown = (moved.position_of(place) for place in (new_low, new_high))
            if all(0 <= value <= self._edge - 1 for place in shown for value in place):
                windows.append(moved)
        return windows

    def _moved_to(self, low: Place, high: Place, window: ClickWindow) -> ClickWindow:
        """A window of the same scale in which these places lie well inside, as far as the volume goes on there.

        The window itself if they do already.
        """
        border = _BORDER * self._edge
        before, after = np.array(window.position_of(low)), np.array(window.position_of(high))
        offset = np.minimum(before - border, 0) + np.maximum(after - (self._edge - 1 - border), 0)
        if not offset.any():
            return window
        return self.around(np.array(window.centre) + offset * np.array(window.ratios), window.step)
