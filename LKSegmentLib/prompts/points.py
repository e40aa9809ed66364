"""One click, and clicks that belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from LKSegmentLib.errors import InputError


@dataclass(frozen=True)
class Point:
    """A click at ``ras`` (r, a, s) in millimetres: ``positive`` = belongs to the structure, else = does not.

    ``with_next``: the next point belongs to the same stroke (`strokes`), and no mask is wanted in between.

    Raises:
        InputError: not three finite numbers.
    """

    ras: tuple[float, float, float]
    positive: bool = True
    with_next: bool = False

    def __post_init__(self) -> None:
        try:
            ras = tuple(float(value) for value in self.ras)
        except (TypeError, ValueError):
            ras = ()
        if len(ras) != 3 or not all(math.isfinite(value) for value in ras):
            raise InputError(f"A point is three finite RAS coordinates in millimetres; got {self.ras!r}.")
        object.__setattr__(self, "ras", ras)
        object.__setattr__(self, "positive", bool(self.positive))
        object.__setattr__(self, "with_next", bool(self.with_next))


def without_last(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points before the last click, or before the whole last stroke; nothing for no points."""
    count = max(0, len(points) - 1)
    while count and points[count - 1].with_next:
        count -= 1
    return tuple(points[:count])
