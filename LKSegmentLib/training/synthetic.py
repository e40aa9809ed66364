"""Volumes that never existed: random anatomy-like scenes with labels, for training the click model.

A scene is drawn in three steps, each deterministic by seed: *layout* (regions that touch, objects inside and across
them, some built as bodies build them), *appearance* (few tissues shared by many regions, so that neighbours often look
alike; texture, bias field, noise, streaks, a field of view that ends inside) and *targets* (a part, a whole or a group:
one image, several right answers). Each target is then seen as the click session shows it: voxels of the size and
thickness of a scanner's, a cube around the structure that it fills more or less, resampled as at inference.
No real image is used anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from LKSegmentLib.inference.click_window import ClickWindow
from LKSegmentLib.volumes import Grid

from . import appearance, shapes
from .anatomy import add_anatomy

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]

SCENE = 96  # voxels along an edge
_LEAST = 40  # voxels of a target


@dataclass(frozen=True)
class SyntheticScene:
    """``image (k, j, i)`` float32 in arbitrary units, ``parts (k, j, i)`` int16 labels.

    ``wholes``: part → object, ``groups``: object → what it belongs to in turn; ``undivided`` are objects that people
    hardly ever mean in part, ``between`` the parts that only separate others (membranes, rims) and are never a target.
    """

    image: Image
    parts: NDArray[np.int16]
    wholes: dict[int, int]
    groups: dict[int, int]
    undivided: frozenset[int]
    between: frozenset[int]


@dataclass(frozen=True)
class View:
    """A structure as a click session shows it: ``image`` and ``target`` are cubes ``(k, j, i)``.

    ``voxels``: of the structure, in voxels of the cube; more than ``target`` has where it goes on outside. Pieces that
    hang together with the target outside only are neither in it nor counted.
    """

    image: Image
    target: Mask
    voxels: float


def draw_scene(seed: int, size: int = SCENE) -> SyntheticScene:
    """One scene of ``size``³ isotropic voxels, the same for the same seed and size."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    layout = shapes.Layout(size, rng, generator)
    layout.partition()
    of_anatomy = float(rng.choice([0.0, 0.5, 0.9]))
    for _ in range(int(rng.integers(2, 9))):
        if rng.random() < of_anatomy:
            add_anatomy(layout)
        else:
            layout.add_object()
    image = appearance.render(layout)
    if rng.random() < 0.12:
        _end_of_view(image, layout)
    parts = layout.parts.numpy().astype(np.int16)
    return SyntheticScene(
        image, parts, layout.wholes, layout.groups, frozenset(layout.undivided), frozenset(layout.between)
    )


def draw_targets(scene: SyntheticScene, seed: int, count: int) -> list[Mask]:
    """Up to ``count`` connected structures of the scene that a person might mean, as boolean masks ``(k, j, i)``."""
    rng = np.random.default_rng(seed)
    present, sizes = np.unique(scene.parts, return_counts=True)
    weights = sizes**0.2 * (sizes >= _LEAST) * ~np.isin(present, list(scene.between))
    if weights.sum() == 0:
        return []
    targets: list[Mask] = []
    for _ in range(4 * count):
        if len(targets) == count:
            break
        part = int(rng.choice(present, p=weights / weights.sum()))
        mask = _one_component(np.isin(scene.parts, _meant(scene, part, rng)), rng)
        if _is_cut_off(mask) and rng.random() < 0.6:  # people mostly mean what they see whole
            continue
        if _LEAST <= mask.sum() <= 0.4 * mask.size and not any(np.array_equal(mask, other) for other in targets):
            targets.append(mask)
    return targets


def views_of_scene(seed: int, number: int, targets: int, size: int, edge: int) -> list[View]:
    """Views of scene ``number`` of a training with this seed, cubes of ``edge``³ voxels."""
    number += seed << 40
    scene = draw_scene(number, size)
    return list(views(scene, draw_targets(scene, number, targets), number, edge))


def views(scene: SyntheticScene, targets: list[Mask], seed: int, edge: int) -> Iterator[View]:
    """Each target as a click session shows it, in cubes of ``edge``³ voxels.

    Targets that are hardly in their view are left out.
    """
    rng = np.random.default_rng(seed)
    for mask in targets:
        image, target = scene.image, mask.astype(np.float32)
        image, target = _scanned(image, target, rng)
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        low, high = np.array([part.start for part in box]), np.array([part.stop for part in box])
        view = _cube(low, high, mask.shape[0], rng)
        k, j, i = (float(value) for value in view[0])
        window = ClickWindow(Grid(mask.shape, np.eye(4)), (k, j, i), view[1] / edge, edge)
        seen = window.sample(target) > 0.5
        picture = window.sample(image)
        whole = float(np.count_nonzero(target > 0.5)) / window.step**3
        axes = rng.permutation(3)
        flips = tuple(int(axis) for axis in np.flatnonzero(rng.random(3) < 0.5))
        seen = np.ascontiguousarray(np.flip(seen.transpose(axes), flips))
        if seen.sum() >= _LEAST:
            piece = _one_component(seen, rng)
            whole -= float(np.count_nonzero(seen) - np.count_nonzero(piece))
            seen = piece
        if _LEAST <= seen.sum() <= 0.6 * seen.size:
            turned = np.ascontiguousarray(np.flip(picture.transpose(axes), flips))
            yield View(turned, seen, max(whole, float(np.count_nonzero(seen))))


def _end_of_view(image: Image, layout: shapes.Layout) -> None:
    """The image ends inside the scene: beyond, there is one constant value, as padding gives, and nothing is meant."""
    axis, depth = int(layout.rng.integers(3)), int(layout.rng.integers(2, layout.size // 3))
    outside = [slice(None)] * 3
    outside[axis] = slice(0, depth) if layout.rng.random() < 0.5 else slice(-depth, None)
    image[tuple(outside)] = image.min()
    beyond = torch.zeros_like(layout.parts, dtype=torch.bool)
    beyond[tuple(outside)] = True
    layout.between.add(layout.paint(beyond))


def _is_cut_off(mask: Mask) -> bool:
    """Whether a good part of the structure's surface lies on the scene's border."""
    faces = sum(int(np.take(mask, index, axis).sum()) for axis in range(3) for index in (0, -1))
    return faces > 0.3 * float(mask.sum()) ** (2 / 3)


def _meant(scene: SyntheticScene, part: int, rng: np.random.Generator) -> list[int]:
    """The parts that a click on ``part`` means: itself, its object, or the group its object belongs to."""
    whole = scene.wholes[part]
    chance = rng.random()
    if chance < (0.06 if whole in scene.undivided else 0.25):
        return [part]
    if chance < 0.87:
        return [other for other in scene.wholes if scene.wholes[other] == whole]
    group = scene.groups[whole]
    return [other for other in scene.wholes if scene.groups[scene.wholes[other]] == group]


def _scanned(image: Image, target: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Coarser voxels, thicker slices; the label is drawn on the scanner's voxels, as people's labels are."""
    size = image.shape[0]
    factors = np.ones(3)
    if rng.random() < 0.4:
        factors *= np.exp(rng.uniform(0, np.log(2.5)))
    if rng.random() < 0.4:
        factors[int(rng.integers(3))] *= np.exp(rng.uniform(np.log(1.3), np.log(8)))
    if (factors == 1).all():
        return image, target
    shape = [max(6, round(size / factor)) for factor in factors]
    both = torch.from_numpy(np.stack((image, target)))[None]
    scanned = torch.nn.functional.interpolate(both, size=shape, mode="area")
    scanned[:, 1] = (scanned[:, 1] > 0.5).float()
    back = torch.nn.functional.interpolate(scanned, size=(size,) * 3, mode="trilinear", align_corners=False)[0].numpy()
    return back[0], back[1]


def _cube(
    low: NDArray[np.intp], high: NDArray[np.intp], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """Centre and edge, in voxels of the scene, of a cube that a structure from ``low`` to ``high`` fills more or less.

    Four times in ten it fills a half to nine tenths of the edge, as in a session that has found its scale. Else it is
    much smaller or goes on outside, as while the scale is being looked for: a network that only ever saw the right
    scale takes every scale for the right one.
    """
    extent = float((high - low).max())
    wide = [rng.uniform(0.45, 0.9), np.exp(rng.uniform(np.log(0.06), np.log(0.45))), rng.uniform(0.9, 3.0)]
    filled = float(rng.choice(wide, p=[0.4, 0.36, 0.24]))
    edge = float(np.clip(extent / filled, 14, size))
    centre = (low + high - 1) / 2 + rng.normal(size=3) * 0.06 * edge
    if edge < extent:  # somewhere along it
        centre = np.asarray(low + rng.random(3) * (high - 1 - low))
    half = edge / 2
    return np.clip(centre, half - 0.5, size - 0.5 - half), edge


def _one_component(mask: Mask, rng: np.random.Generator) -> Mask:
    """One connected component, larger ones more often."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    chosen = 1 + int(rng.choice(count, p=sizes / sizes.sum()))
    return labels == chosen
