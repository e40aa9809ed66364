"""What the network answered in one window, and how far two such answers agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from .click_window import ClickWindow

_TOUCHING = 4  # voxels on an inner face of the window, from which on the structure is taken to go on outside


@dataclass(frozen=True, eq=False)
class Look:
    """Logits ``(k, j, i)`` of the network in one window, every click on its side; ``kept`` by a recorder.

    ``judged``: the Dice with the whole structure that the network itself expects of its answer, as it was before clicks
    were held in it, if it tells.
    """

    window: ClickWindow
    logits: NDArray[np.float32]
    judged: float | None = None
    kept: Any = None

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The answer as a mask in voxels of the window."""
        return self.logits > 0

    @cached_property
    def runs_out(self) -> bool:
        """Whether the mask reaches a face of the window behind which the volume goes on."""
        return any(
            int(np.count_nonzero(np.take(self.mask, index, axis=axis))) >= _TOUCHING
            for axis, index in self.window.outermost_inside()
        )

    @cached_property
    def expected_dice(self) -> float:
        """Of the mask with the structure: as the network judges, else if its probabilities are right (soft Dice)."""
        if self.judged is not None:
            return self.judged
        probability = expit(self.logits)
        if not self.mask.any():
            return float(1 - probability.max())  # how sure it is that there is nothing
        return float(2 * probability[self.mask].sum() / (probability.sum() + np.count_nonzero(self.mask)))

    @cached_property
    def extent(self) -> float:
        """The mask's longest edge along an axis, mm; 0 for an empty mask."""
        lengths = [np.ptp(np.flatnonzero(self.mask.any(axis=axes))) + 1 for axes in _OTHERS] if self.mask.any() else [0]
        return float(max(lengths)) * self.window.step

    @cached_property
    def size(self) -> float:
        """The mask's volume, mm³."""
        return float(np.count_nonzero(self.mask)) * self.window.step**3


_OTHERS = ((1, 2), (0, 2), (0, 1))


def agreement(coarse: Look, fine: Look) -> float:
    """Intersection over union of two masks of one grid, in mm³; what lies outside of ``fine``'s window counts too."""
    seen = coarse.window.spread_over(coarse.logits, fine.window) > 0
    common = float(np.count_nonzero(seen & fine.mask)) * fine.window.step**3
    either = coarse.size + fine.size - common
    return min(1.0, common / either) if either > 0 else 1.0
