"""Volumes that never existed: random anatomy-like scenes with labels, for training the click model.

A scene is drawn in three steps, each deterministic by seed: *layout* (regions that touch, objects inside and across
them: warped ellipsoids, shells, tubes, sheets, groups of alike objects), *appearance* (few tissues shared by many
regions, so that neighbours often look alike; texture, bias field, partial volume, thick slices, noise, streaks, a
field of view that ends inside the window) and *targets* (a part, a whole or a union: one image, several right answers).
No real image is used anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from . import appearance, shapes

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SyntheticScene:
    """``image (k, j, i)`` float32 in arbitrary units, ``parts (k, j, i)`` int16 labels, ``wholes``: part → object.

    ``between`` are the parts that only separate others (membranes, rims) and are never a target.
    """

    image: NDArray[np.float32]
    parts: NDArray[np.int16]
    wholes: dict[int, int]
    between: frozenset[int]


def draw_scene(seed: int, size: int = 48) -> SyntheticScene:
    """One scene of ``size``³ isotropic voxels, the same for the same seed and size."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    layout = shapes.Layout(size, rng, generator)
    layout.partition()
    for _ in range(int(rng.integers(1, 7))):
        layout.add_object()
    image = appearance.render(layout.parts, layout.wholes, rng, generator)
    return SyntheticScene(image, layout.parts.numpy().astype(np.int16), layout.wholes, frozenset(layout.between))


def draw_targets(scene: SyntheticScene, seed: int, count: int) -> list[Mask]:
    """Up to ``count`` connected structures of the scene that a person might mean, as boolean masks."""
    rng = np.random.default_rng(seed)
    present, sizes = np.unique(scene.parts, return_counts=True)
    weights = sizes**0.3 * (sizes >= 40) * ~np.isin(present, list(scene.between))
    if weights.sum() == 0:
        return []
    targets: list[Mask] = []
    for _ in range(4 * count):
        if len(targets) == count:
            break
        part = int(rng.choice(present, p=weights / weights.sum()))
        whole = scene.wholes[part]
        union = [other for other in scene.wholes if scene.wholes[other] == whole]
        chosen = union if rng.random() < 0.5 else [part]
        mask = _one_component(np.isin(scene.parts, chosen), rng)
        if 40 <= mask.sum() <= 0.4 * mask.size and not any(np.array_equal(mask, other) for other in targets):
            targets.append(mask)
    return targets


def _one_component(mask: Mask, rng: np.random.Generator) -> Mask:
    """One connected component, larger ones more often; specks of under 8 voxels go with the component they touch."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    chosen = 1 + int(rng.choice(count, p=sizes / sizes.sum()))
    return labels == chosen
