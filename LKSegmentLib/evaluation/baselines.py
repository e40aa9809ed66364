"""Classical methods that get the same clicks: what a click model must be worth more than.

Their parameters were chosen on the very structures the click model is measured on, for the best mean Dice over 1, 3, 5
and 10 clicks: in their favour. Both need the structure to end within the volume, as it does in a cube around it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

Mask = NDArray[np.bool_]
Voxel = tuple[int, int, int]

SMOOTHING_STEPS = 5
DEVIATIONS = 2.5
WALKER_EDGE, WALKER_EDGE_FINE = 32, 64
WALKER_BETA = 10_000.0
WALKER_TOLERANCE = 1e-3


def region_growing(volume: Volume, points: Sequence[Point]) -> Mask:
    """Clicks → mask (k, j, i) by SimpleITK's ``ConfidenceConnected``, grown from the positive clicks.

    The image is smoothed (``CurvatureFlow``, 5 steps of 0.0625). What hangs together with a positive click, within 2.5
    standard deviations of the mean of the 3³ voxels around the positive clicks, is taken. A voxel nearer to a negative
    click than to every positive one is left out.
    """
    import SimpleITK

    clicks = _voxels(volume, points)
    image = SimpleITK.GetImageFromArray(volume.array.astype(np.float32))
    image = SimpleITK.CurvatureFlow(image, timeStep=0.0625, numberOfIterations=SMOOTHING_STEPS)
    grown = SimpleITK.ConfidenceConnected(
        image,
        seedList=[voxel[::-1] for voxel, positive in clicks if positive],
        numberOfIterations=0,
        multiplier=DEVIATIONS,
        initialNeighborhoodRadius=1,
        replaceValue=1,
    )
    result: Mask = SimpleITK.GetArrayFromImage(grown) > 0
    if not all(positive for _, positive in clicks):
        result &= _nearest_is_positive(volume.grid.shape, clicks)
    return _held(result, clicks)


def random_walker(volume: Volume, points: Sequence[Point]) -> Mask:
    """Clicks → mask (k, j, i) by scikit-image's ``random_walker``, beta 10 000, the volume's border as background.

    It walks on voxels so coarse that the longest edge has 32 of them (mode "cg_j", tolerance 10⁻³), which takes a
    twentieth of the time it needs at 64³. Its probabilities come back linearly; inside is above one half. L. Grady,
    "Random walks for image segmentation", IEEE TPAMI 2006.
    """
    return _walk(volume, points, WALKER_BETA)


def random_walker_fine(volume: Volume, points: Sequence[Point]) -> Mask:
    """As `random_walker`, with 64 voxels along the longest edge: better, and about a second a mask."""
    return _walk(volume, points, WALKER_BETA, WALKER_EDGE_FINE)


def random_walker_as_it_comes(volume: Volume, points: Sequence[Point]) -> Mask:
    """As `random_walker`, with the beta that scikit-image has by itself, 130."""
    return _walk(volume, points, 130.0)


def require_scikit_image() -> None:
    """Raises InputError where scikit-image is missing."""
    if importlib.util.find_spec("skimage") is None:
        raise InputError("The random walker needs scikit-image: pip install 'lksegment[evaluation]'.")


def _walk(volume: Volume, points: Sequence[Point], beta: float, edge: int = WALKER_EDGE) -> Mask:
    from skimage.segmentation import random_walker as walk

    factor = math.ceil(max(volume.grid.shape) / edge)
    coarse = _coarse(volume.array.astype(np.float32), factor)
    low, high = np.percentile(coarse, (1, 99))
    seeds = np.zeros(coarse.shape, np.int32)
    for axis in range(3):
        for face in (0, -1):
            np.moveaxis(seeds, axis, 0)[face] = 2
    clicks = _voxels(volume, points)
    reach = 1 if factor == 1 else 0  # a single voxel among so many would hardly count; 3³ is what a brush leaves
    for voxel, positive in clicks:
        around = tuple(slice(max(index // factor - reach, 0), index // factor + reach + 1) for index in voxel)
        seeds[around] = 1 if positive else 2
    if high <= low or not (seeds == 1).any() or (seeds > 0).all():
        probability = (seeds == 1).astype(np.float64)  # nothing to walk along
    else:
        image = np.clip((coarse - low) / (high - low), 0, 1)
        with warnings.catch_warnings():
            # At a high beta the solver leaves 0…1 at voxels that hardly hang together with others, and says so.
            warnings.simplefilter("ignore", UserWarning)
            probability = walk(image, seeds, beta=beta, mode="cg_j", tol=WALKER_TOLERANCE, return_full_prob=True)[0]
    fine = ndimage.zoom(probability, factor, order=1, grid_mode=True, mode="nearest")
    k, j, i = volume.grid.shape
    result: Mask = fine[:k, :j, :i] > 0.5
    return _held(result, clicks)


def _held(mask: Mask, clicks: Sequence[tuple[Voxel, bool]]) -> Mask:
    """The mask with every clicked voxel on its side: no method is to lose points for ignoring one voxel."""
    for voxel, positive in clicks:
        mask[voxel] = positive
    return mask


def _coarse(array: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Means over ``factor``³ voxels; at the far ends the last voxel is repeated to fill up."""
    padded = np.pad(array, [(0, -size % factor) for size in array.shape], mode="edge")
    k, j, i = (size // factor for size in padded.shape)
    result: NDArray[np.float32] = padded.reshape(k, factor, j, factor, i, factor).mean((1, 3, 5))
    return result


def _voxels(volume: Volume, points: Sequence[Point]) -> list[tuple[Voxel, bool]]:
    found = []
    for point in points:
        k, j, i = (int(value) for value in np.rint(volume.grid.ijk_of(point.ras)[::-1]))
        found.append(((k, j, i), point.positive))
    return found


def _nearest_is_positive(shape: tuple[int, int, int], clicks: Sequence[tuple[Voxel, bool]]) -> Mask:
    """Whether the nearest click, counted in voxels, is a positive one; of equally near ones the first."""
    best = np.full(shape, np.inf, np.float32)
    result = np.zeros(shape, bool)
    axes = [np.arange(size, dtype=np.float32) for size in shape]
    for voxel, positive in clicks:
        k, j, i = (np.square(axis - index) for axis, index in zip(axes, voxel, strict=True))
        squared = k[:, None, None] + j[:, None] + i
        nearer = squared < best
        best[nearer] = squared[nearer]
        result[nearer] = positive
    return result
