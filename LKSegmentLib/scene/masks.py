"""A mask and a segment on one lattice: where they meet, and which voxels differ. Arrays are (k, j, i).

A segmentation keeps its labelmaps on a lattice in its own frame. A mask comes on the grid of a volume, which may
be under another parent transform, cropped, or a different grid altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.scene.core import Node, slicer_module
from LKSegmentLib.scene.geometry import (
    Matrix,
    bounding_box,
    box_of_extent,
    image_array,
    image_matrix,
    local_to_world,
    resampled_mask,
    whole_voxel_shift,
)

Mode = Literal["add", "remove", "replace"]


def binary_labelmap() -> str:
    """Slicer's name of the representation that holds voxels."""
    return str(slicer_module().vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())


def mask_on_lattice(
    node: Node, lower: Sequence[int], array: NDArray[Any], ijk_to_world: Matrix, lattice: Matrix
) -> tuple[Sequence[int], NDArray[np.bool_]]:
    """The mask on the segmentation's lattice: (first voxel, array), both (k, j, i); whole voxels where it agrees."""
    box = bounding_box(array) if array.size else None
    if box is None:
        return (0, 0, 0), np.zeros((0, 0, 0), dtype=bool)
    inner = tuple(slice(start, end) for start, end in zip(*box, strict=True))
    first = [int(start) + offset for start, offset in zip(lower, box[0], strict=True)]
    local = np.linalg.inv(local_to_world(node, "segmentation")) @ ijk_to_world
    last = [start + size for start, size in zip(lower, array.shape, strict=True)]
    shift = whole_voxel_shift(local, lattice, last)
    if shift is not None:
        return [start + step for start, step in zip(first, shift, strict=True)], array[inner] != 0
    image = resampled_mask(array[inner] != 0, local, first, lattice)
    return box_of_extent(image.GetExtent())[0], image_array(image) > 0


def changes_to(
    segment: Any, lattice: Matrix, lower: Sequence[int], mask: NDArray[np.bool_], mode: Mode
) -> list[tuple[str, Sequence[int], NDArray[np.bool_]]]:
    """What to send: (modification, first voxel, array) cropped to the voxels that differ from the segment."""
    whole_lower, whole = lower, mask
    if mode == "replace":
        own_lower, own_upper = box_of_extent(segment.GetRepresentation(binary_labelmap()).GetExtent())
        if own_upper > own_lower:
            whole_lower, whole = _grown(lower, mask, own_lower, own_upper)
    if whole.size == 0:
        return []
    current = segment_on(segment, lattice, whole_lower, whole.shape)
    wanted: list[tuple[str, NDArray[np.bool_]]] = []
    if mode == "replace":
        wanted.append(("Remove", current & ~whole))
    elif mode == "remove":
        wanted.append(("Remove", current & whole))
    if mode in ("add", "replace"):
        wanted.append(("Add", whole & ~current))
    changes: list[tuple[str, Sequence[int], NDArray[np.bool_]]] = []
    for modification, change in wanted:
        box = bounding_box(change)
        if box is not None:
            inner = tuple(slice(start, end) for start, end in zip(*box, strict=True))
            first = [int(start) + offset for start, offset in zip(whole_lower, box[0], strict=True)]
            changes.append((modification, first, change[inner]))
    return changes


def _grown(
    lower: Sequence[int], mask: NDArray[np.bool_], other_lower: Sequence[int], other_upper: Sequence[int]
) -> tuple[Sequence[int], NDArray[np.bool_]]:
    """The mask on a box that holds its own and another one."""
    if mask.size == 0:
        shape = [end - start for start, end in zip(other_lower, other_upper, strict=True)]
        return other_lower, np.zeros(shape, dtype=bool)
    upper = [start + size for start, size in zip(lower, mask.shape, strict=True)]
    first = np.minimum(lower, other_lower)
    grown = np.zeros(np.maximum(upper, other_upper) - first, dtype=bool)
    offset = np.asarray(lower) - first
    grown[tuple(slice(start, start + size) for start, size in zip(offset, mask.shape, strict=True))] = mask
    return first.tolist(), grown


def segment_on(segment: Any, matrix: Matrix, lower: Sequence[int], shape: Sequence[int]) -> NDArray[np.bool_]:
    """The segment's voxels on a box of a lattice in the segmentation's frame."""
    result = np.zeros(tuple(shape), dtype=bool)
    image = segment.GetRepresentation(binary_labelmap())
    own_lower, own_upper = box_of_extent(image.GetExtent())
    if own_lower == own_upper or image.GetPointData().GetScalars() is None:
        return result
    voxels = image_array(image) == segment.GetLabelValue()
    shift = whole_voxel_shift(image_matrix(image), matrix, own_upper)
    if shift is not None:
        first = [start + step for start, step in zip(own_lower, shift, strict=True)]
    else:
        resampled = resampled_mask(voxels, image_matrix(image), own_lower, matrix)
        voxels = image_array(resampled) > 0
        first = list(box_of_extent(resampled.GetExtent())[0])
    start = np.maximum(first, lower)
    end = np.minimum(np.asarray(first) + voxels.shape, np.asarray(lower) + shape)
    if (end > start).all():
        target = tuple(slice(a - o, b - o) for a, b, o in zip(start, end, lower, strict=True))
        source = tuple(slice(a - o, b - o) for a, b, o in zip(start, end, first, strict=True))
        result[target] = voxels[source]
    return result
