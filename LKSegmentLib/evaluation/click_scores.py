"""How a click method does on known structures, click after click, with clicks as a person would correct.

Protocol. A cube around the structure, 1.3 times its longest edge, is resampled to 64³ isotropic voxels; every method
works on that same small volume. The first click is the deepest voxel of the structure, each further one the middle of
the largest error of the mask *of the method under test* (or, for ``same_clicks``, of the leading method).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LKSegmentLib.inference.click_window import ClickWindow
from LKSegmentLib.prompts import Point
from LKSegmentLib.prompts.simulated import correcting_click, first_click
from LKSegmentLib.volumes import Volume, read_volume, resample

from .metrics import dice

Mask = NDArray[np.bool_]

CLICKS = (1, 3, 5, 10)
EDGE = 64
_SURROUNDINGS = 1.3
_LEAST_VOXELS = 200

# case folder → image, labels (readable files below the data folder)
REAL_CASES = {
    "01_ct_abdomen_multiorgan": ("ct.nii.gz", "labels_fast.nii.gz"),
    "03_mr_abdomen_multiorgan": ("mr.nii.gz", "labels.nii.gz"),
    "05_cta_heart": ("ct.nii.gz", "pulmonary_artery.nii.gz"),
}


class ClickMethod(Protocol):
    """Anything that answers clicks on a volume with a mask on its grid."""

    def __call__(self, volume: Volume, points: Sequence[Point]) -> Mask: ...


@dataclass(frozen=True)
class Structure:
    """One labelled structure of one case: ``volume`` and ``target`` (k, j, i) on the same grid."""

    case: str
    value: int
    volume: Volume
    target: Mask

    def cropped(self, edge: int = EDGE) -> Structure:
        """The cube around the structure, resampled to ``edge``³ isotropic voxels."""
        box = ndimage.find_objects(self.target.astype(np.uint8))[0]
        low = np.array([part.start for part in box], float)
        high = np.array([part.stop for part in box], float)
        spacing = np.array(self.volume.spacing[::-1])
        step = _SURROUNDINGS * float(((high - low) * spacing).max()) / edge
        k, j, i = (float(value) for value in (low + high - 1) / 2)
        window = ClickWindow(self.volume.grid, (k, j, i), step, edge)
        target = window.sample(self.target.view(np.uint8)) > 0.5
        image = Volume(window.sample(self.volume.array), window.window_grid.ijk_to_ras)
        return Structure(self.case, self.value, image, target)


def real_structures(folder: Path, least_voxels: int = _LEAST_VOXELS) -> Iterator[Structure]:
    """Every structure of the real cases with at least ``least_voxels`` voxels, as one connected piece.

    Of a label in several pieces the largest is taken: a click means one piece.
    """
    for case, (image_name, label_name) in REAL_CASES.items():
        if not (folder / case / image_name).exists():
            continue
        image, labels = read_volume(folder / case / image_name), read_volume(folder / case / label_name)
        if not labels.grid.matches(image.grid):
            labels = resample(labels, image.grid, interpolation="nearest", fill=0)
        for value in np.unique(labels.array):
            if value <= 0:
                continue
            pieces, count = ndimage.label(labels.array == value)
            if count == 0:
                continue
            target = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
            if target.sum() >= least_voxels:
                yield Structure(case, int(value), image, target)


def click_through(
    method: ClickMethod,
    structure: Structure,
    clicks: int = max(CLICKS),
    watch: Callable[[list[Point], Mask], None] | None = None,
) -> list[float]:
    """Dice after each of ``clicks`` clicks; each corrects the largest error of the method's own mask."""
    place = first_click(structure.target)
    points = [_point(structure.volume, place, True)]
    scores = []
    while True:
        mask = np.asarray(method(structure.volume, points), bool)
        scores.append(dice(mask, structure.target))
        if watch is not None:
            watch(points, mask)
        if len(scores) == clicks:
            return scores
        correction = correcting_click(structure.target, mask)
        if correction is None:
            return scores + [1.0] * (clicks - len(scores))
        points = [*points, _point(structure.volume, *correction)]


def same_clicks(
    leader: ClickMethod, follower: ClickMethod, structure: Structure, clicks: int = max(CLICKS)
) -> tuple[list[float], list[float]]:
    """Dice after each click of both methods, where both get the very clicks that correct the leader."""
    followed: list[float] = []

    def follow(points: list[Point], _: Mask) -> None:
        followed.append(dice(np.asarray(follower(structure.volume, points), bool), structure.target))

    led = click_through(leader, structure, clicks, follow)
    return led, followed + followed[-1:] * (clicks - len(followed))


def _point(volume: Volume, voxel: tuple[int, int, int], positive: bool) -> Point:
    r, a, s = (float(value) for value in volume.grid.ras_of(voxel[::-1]))
    return Point((r, a, s), positive)
