"""How the arguments of a request are written into its message, and what a request is called in sentences."""

from __future__ import annotations

import os
from collections.abc import Sequence

from LKSegmentLib.prompts import Point

_WORDS = {
    "segment": "segmenting",
    "click": "working on a click",
    "exposed": "listing maps",
    "inspect": "recording maps",
    "reach": "computing the reach",
    "models": "listing models",
    "doctor": "checking",
}


def model_name(name: str) -> str:
    """Paths become absolute, as the worker lives in another folder; names stay as they are.

    A bare name is a path where no installed model is called so and a folder here is, as `packages.store.locate` has it.
    """
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    is_path = any(s in name for s in separators) or name.lower().endswith(".zip")
    if not is_path and os.path.isdir(name):
        from LKSegmentLib.packages import catalogue

        is_path = all(entry.name != name for entry in catalogue())
    return os.path.abspath(os.path.expanduser(name)) if is_path else name


def listed_points(points: Sequence[Point]) -> list[list[float | bool]]:
    """[r, a, s, positive] of each point, in order, and true behind where the next one belongs to the same stroke."""
    return [[*point.ras, point.positive, *((True,) if point.with_next else ())] for point in points]


def doing_what(kind: str) -> str:
    """What a worker was doing when a job of this kind ran; "" for none."""
    return _WORDS[kind] if kind else "waiting for requests"
