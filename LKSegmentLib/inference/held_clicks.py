"""No click is ignored: after a positive click its voxel is inside, after a negative one outside.

The network almost always sees to it; where it does not, its logits are raised or lowered around the click, no farther
than a finger's breadth on screen, and the clicked voxel of the volume is set last of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]

_LEAST = 0.5  # logit, of the right sign, that a click's voxel has at least
_WIDTH = 1.5  # voxels of the window; standard deviation of the bump


def hold_in_logits(
    logits: NDArray[np.float32], places: Sequence[Triple], positive: Sequence[bool]
) -> NDArray[np.float32]:
    """The logits (k, j, i) with every click on its side; the same array when they were so already.

    Args:
        logits: of one window; left as they are.
        places: of the clicks, (k, j, i) in voxels of the window; those outside of it are passed over.
        positive: of each click. Where two contradict each other, the later one holds.
    """
    held = logits
    axes = [np.arange(edge, dtype=np.float32) for edge in logits.shape]
    for place, inside in zip(places, positive, strict=True):
        voxel = tuple(round(value) for value in place)
        if not all(0 <= value < edge for value, edge in zip(voxel, logits.shape, strict=True)):
            continue
        sign = np.float32(1 if inside else -1)
        missing = np.float32(_LEAST) - sign * held[voxel]
        if missing <= 0:
            continue
        k, j, i = (np.square(axis - value) for axis, value in zip(axes, voxel, strict=True))
        squared = k[:, None, None] + j[:, None] + i
        held = held + sign * missing * np.exp(squared * np.float32(-0.5 / _WIDTH**2))
    return held


def hold_in_mask(
    mask: NDArray[np.bool_],
    lower: tuple[int, int, int],
    voxels: Sequence[NDArray[np.float64]],
    positive: Sequence[bool],
) -> None:
    """Set the clicked voxels of ``mask``, the box of a volume that begins at voxel ``lower``; in place.

    Args:
        voxels: of the clicks, (k, j, i) in voxels of the volume; those outside of the box are passed over.
    """
    for place, inside in zip(voxels, positive, strict=True):
        voxel = tuple(int(value) - low for value, low in zip(np.rint(place), lower, strict=True))
        if all(0 <= value < edge for value, edge in zip(voxel, mask.shape, strict=True)):
            mask[voxel] = inside
