"""One click."""

from __future__ import annotations

import math
from dataclasses import dataclass

from LKSegmentLib.errors import InputError


@dataclass(frozen=True)
class Point:
    """A click at ``ras`` (r, a, s) in millimetres: ``positive`` = belongs to the structure, else = does not.

    Raises:
        InputError: not three finite numbers.
    """

    ras: tuple[float, float, float]
    positive: bool = True

    def __post_init__(self) -> None:
        try:
            ras = tuple(float(value) for value in self.ras)
        except (TypeError, ValueError):
            ras = ()
        if len(ras) != 3 or not all(math.isfinite(value) for value in ras):
            raise InputError(f"A point is three finite RAS coordinates in millimetres; got {self.ras!r}.")
        object.__setattr__(self, "ras", ras)
        object.__setattr__(self, "positive", bool(self.positive))
