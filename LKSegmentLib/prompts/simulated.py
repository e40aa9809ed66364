"""Clicks as a person would place them, given the structure they mean and the mask they see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Voxel = tuple[int, int, int]


def first_click(target: Mask, rng: np.random.Generator | None = None) -> Voxel:
    """A voxel (k, j, i) inside ``target``: the deepest one, or with ``rng`` anywhere sensible, rather deep."""
    return _place(target, rng, deepest_share=0.35)


def correcting_click(
    target: Mask, mask: Mask, rng: np.random.Generator | None = None
) -> tuple[Voxel, bool] | None:
    """The next click ``((k, j, i), positive)``: in the middle of the largest error; None when nothing is wrong.

    With ``rng`` one of the larger errors is chosen, and the click lies in its middle or anywhere in it.
    """
    missed, wrong = target & ~mask, mask & ~target
    candidates = [(component, True) for component in _components(missed)]
    candidates += [(component, False) for component in _components(wrong)]
    if not candidates:
        return None
    sizes = np.array([component.sum() for component, _ in candidates], float)
    if rng is None or rng.random() < 0.6:
        component, positive = candidates[int(sizes.argmax())]
    else:
        component, positive = candidates[int(rng.choice(len(candidates), p=sizes / sizes.sum()))]
    return _place(component, rng, deepest_share=0.5), positive


def scribble(region: Mask, place: Voxel, rng: np.random.Generator, reach: float = 9.0) -> list[Voxel]:
    """A few more voxels of ``region``'s piece around ``place``, within ``reach`` voxels: a short stroke, as points."""
    labels, _ = ndimage.label(region)
    voxels = np.argwhere(labels == labels[place])
    near = voxels[np.linalg.norm(voxels - np.array(place), axis=1) <= reach]
    chosen = near[rng.choice(len(near), min(len(near), int(rng.integers(2, 7))), replace=False)]
    return [(int(k), int(j), int(i)) for k, j, i in chosen]


def box_faces(target: Mask, margin: int = 2) -> list[Voxel]:
    """The middles of the six faces of a box ``margin`` voxels around ``target``, as far as they lie outside of it."""
    box = ndimage.find_objects(target.astype(np.uint8))[0]
    middle = [(part.start + part.stop - 1) // 2 for part in box]
    faces = []
    for axis, part in enumerate(box):
        for place in (part.start - 1 - margin, part.stop + margin):
            if 0 <= place < target.shape[axis]:
                k, j, i = (place if other == axis else value for other, value in enumerate(middle))
                if not target[k, j, i]:
                    faces.append((k, j, i))
    return faces


def _components(error: Mask) -> list[Mask]:
    """The three largest connected components, largest first."""
    labels, count = ndimage.label(error)
    if count == 0:
        return []
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == 1 + int(index) for index in np.argsort(sizes)[::-1][:3]]


def _place(region: Mask, rng: np.random.Generator | None, deepest_share: float) -> Voxel:
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    # The window's border counts as the region's border: a person clicks where the structure is on screen.
    depth = ndimage.distance_transform_edt(np.pad(region[box], 1))[1:-1, 1:-1, 1:-1]
    if rng is None or rng.random() < deepest_share:
        flat = int(depth.argmax())
    else:
        weights = np.square(depth).ravel()
        flat = int(rng.choice(weights.size, p=weights / weights.sum()))
    inside = np.unravel_index(flat, depth.shape)
    k, j, i = (int(index) + axis.start for index, axis in zip(inside, box, strict=True))
    return k, j, i
