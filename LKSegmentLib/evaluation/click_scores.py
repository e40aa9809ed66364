"""How a click method does on known structures, click after click, with clicks as a person would correct.

Protocol. A cube around the structure, 1.3 times its longest edge, is resampled to 64³ isotropic voxels; every method
works on that same small volume. The first click is the deepest voxel of the structure, each further one the middle of
the largest error of the mask *of the method under test* (or, for ``follow``, of the leading method).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.packages import Package
from LKSegmentLib.prompts import Point
from LKSegmentLib.prompts.simulated import correcting_click, first_click
from LKSegmentLib.volumes import Volume

from .metrics import SurfaceDice, dice
from .structure_kinds import Kind
from .structures import Structure

Mask = NDArray[np.bool_]

COUNTED = (1, 2, 3, 5, 10)
"""The numbers of clicks after which scores are told."""


class ClickMethod(Protocol):
    """Anything that answers clicks on a volume with a mask on its grid."""

    def __call__(self, volume: Volume, points: Sequence[Point]) -> Mask: ...


class ModelMethod:
    """A click model as a :class:`ClickMethod`; the session of a volume stays while that volume is asked about."""

    def __init__(self, package: Package, device: str = "cpu") -> None:
        self._package = package
        self._device = device
        self._session: ClickModelSession | None = None

    def __call__(self, volume: Volume, points: Sequence[Point]) -> Mask:
        if self._session is None or self._session.volume is not volume:
            self._session = ClickModelSession(volume, self._package, self._device)
        return self._session.mask_for(points).full(volume.grid.shape)


@dataclass(frozen=True)
class Baseline:
    """Something to compare with. With ``own_clicks`` it also gets clicks that correct its own errors."""

    name: str
    method: ClickMethod
    own_clicks: bool = False


@dataclass(frozen=True)
class Step:
    """A method's answer to some clicks: mask (k, j, i), seconds it took, whether the last click was ignored."""

    points: tuple[Point, ...]
    mask: Mask
    seconds: float
    ignored: bool


@dataclass(frozen=True)
class Curve:
    """What a method reached on a structure after each of these numbers of ``clicks``.

    ``seconds`` may be fewer: once the mask is perfect, nobody clicks any more. ``ignored`` counts clicks after which
    their own voxel was on the wrong side.
    """

    clicks: tuple[int, ...]
    dice: tuple[float, ...]
    surface_dice: tuple[float, ...]
    seconds: tuple[float, ...]
    ignored: int

    def at(self, count: int) -> int:
        """The place of this number of clicks in the lists."""
        return self.clicks.index(count)


@dataclass(frozen=True)
class ClickScore:
    """Scores of one structure: of the model under test, and of others by name.

    ``tolerance_mm`` is that of the surface Dice: one voxel of the volume that was clicked on.
    """

    case: str
    value: int
    name: str
    modality: str
    kind: Kind
    reference: str
    voxels: int
    tolerance_mm: float
    model: Curve
    others: dict[str, Curve]


def own_clicks(name: str) -> str:
    """What a baseline's curve is called where the clicks correct its own errors."""
    return f"{name}, own clicks"


def counted(clicks: int) -> tuple[int, ...]:
    """The numbers of clicks, up to ``clicks``, that scores are told for."""
    return tuple(sorted({count for count in COUNTED if count <= clicks} | {clicks}))


def score(
    structure: Structure,
    method: ClickMethod,
    baselines: Iterable[Baseline] = (),
    clicks: int = max(COUNTED),
    watch: Callable[[int, Step], None] | None = None,
) -> ClickScore:
    """Click through a structure with the method under test, then give the baselines the same clicks.

    ``watch(count, step)`` sees each answer of the method under test.
    """
    tolerance = structure.voxel_mm
    i, j, k = structure.volume.spacing
    surface = SurfaceDice(structure.target, (k, j, i), tolerance)
    steps = []
    for count, step in enumerate(lead(method, structure, clicks), start=1):
        steps.append(step)
        if watch is not None:
            watch(count, step)
    every = range(1, clicks + 1)
    series = [step.points for step in steps]
    others = {}
    for baseline in baselines:
        followed = follow(baseline.method, structure, series, counted(clicks))
        others[baseline.name] = _curve(counted(clicks), followed, structure, surface)
        if baseline.own_clicks:
            led = zip(every, lead(baseline.method, structure, clicks), strict=False)
            others[own_clicks(baseline.name)] = _curve(every, led, structure, surface)
    return ClickScore(
        structure.case, structure.value, structure.name or str(structure.value), structure.modality, structure.kind,
        structure.reference, structure.voxels or int(structure.target.sum()), tolerance,
        _curve(every, enumerate(steps, start=1), structure, surface), others,
    )  # fmt: skip


def lead(method: ClickMethod, structure: Structure, clicks: int = max(COUNTED)) -> Iterator[Step]:
    """The method's answers, each click correcting the largest error of the last one; ends early when none is left."""
    points: tuple[Point, ...] = (_point(structure.volume, first_click(structure.target), True),)
    while True:
        step = _step(method, structure, points)
        yield step
        correction = correcting_click(structure.target, step.mask) if len(points) < clicks else None
        if correction is None:
            return
        points = (*points, _point(structure.volume, *correction))


def follow(
    method: ClickMethod, structure: Structure, series: Sequence[tuple[Point, ...]], counts: Iterable[int]
) -> Iterator[tuple[int, Step]]:
    """The method's answers to somebody else's clicks, at these counts only; ``series[n]`` holds n + 1 clicks."""
    for count in counts:
        if count > len(series):
            yield count, _step(method, structure, series[-1])
            return
        yield count, _step(method, structure, series[count - 1])


def _step(method: ClickMethod, structure: Structure, points: tuple[Point, ...]) -> Step:
    begun = time.perf_counter()
    mask = np.asarray(method(structure.volume, points), bool)
    seconds = time.perf_counter() - begun
    last = points[-1]
    k, j, i = (int(value) for value in np.rint(structure.volume.grid.ijk_of(last.ras)[::-1]))
    return Step(points, mask, seconds, bool(mask[k, j, i]) != last.positive)


def _curve(
    counts: Sequence[int], steps: Iterable[tuple[int, Step]], structure: Structure, surface: SurfaceDice
) -> Curve:
    """The scores at ``counts``; where no click was needed any more, the last ones hold."""
    scores: list[tuple[float, float]] = []
    seconds, ignored = [], 0
    for _, step in steps:
        scores.append((dice(step.mask, structure.target), surface(step.mask)))
        seconds.append(step.seconds)
        ignored += step.ignored
    scores += scores[-1:] * (len(counts) - len(scores))
    overlap, near = zip(*scores, strict=True)
    return Curve(tuple(counts), overlap, near, tuple(seconds), ignored)


def _point(volume: Volume, voxel: tuple[int, int, int], positive: bool) -> Point:
    r, a, s = (float(value) for value in volume.grid.ras_of(voxel[::-1]))
    return Point((r, a, s), positive)
