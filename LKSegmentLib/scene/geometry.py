"""Matrices and oriented images: between numpy and vtk, and between the frames that parent transforms make.

A node's own frame ("local") is the one before its parent transforms; "world" is after all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, slicer_module

Matrix = NDArray[np.float64]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]

# Two lattices are the same when no corner of the region is further apart than this share of a voxel.
_SAME_LATTICE_VOXELS = 1e-3


def to_vtk_matrix(matrix: NDArray[Any]) -> Any:
    """A numpy 4x4 matrix as `vtkMatrix4x4`."""
    import vtk

    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result


def from_vtk_matrix(matrix: Any) -> Matrix:
    """A `vtkMatrix4x4` as numpy 4x4 float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)], dtype=np.float64)


def local_to_world(node: Node, what: str) -> Matrix:
    """The linear transform (4x4) that takes the node's own frame to the world; the identity without a parent.

    InputError when a parent transform is non-linear or cannot be inverted. `what` names the node in the sentence.
    """
    import vtk

    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise InputError(
            f"The {what} '{node.GetName()}' is under the non-linear transform '{transform.GetName()}'. "
            "Harden that transform (Data module, right click on the node) or take the node out of it."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    result = from_vtk_matrix(matrix)
    if not np.isfinite(result).all() or abs(np.linalg.det(result[:3, :3])) < 1e-12:
        raise InputError(
            f"The transform '{transform.GetName()}' of the {what} '{node.GetName()}' cannot be inverted. "
            "Correct its matrix in the Transforms module."
        )
    return result


def share_parent_transform(node: Node, like: Node) -> None:
    """Put the node under the parent transform that `like` has (or none), without touching its own geometry."""
    node.SetAndObserveTransformNodeID(like.GetTransformNodeID())


def to_vtk_array(array: NDArray[Any], copy: bool = True) -> Any:
    """A numpy array, flattened, as a vtk array that owns its memory; with `copy` False it shares that of the array.

    A shared one keeps the numpy array alive for as long as vtk uses it. What cannot be shared is copied.
    """
    from vtk.util import numpy_support

    flat = np.ascontiguousarray(array).ravel()
    return numpy_support.numpy_to_vtk(flat, deep=copy or not flat.flags.writeable)


def image_array(image: Any) -> NDArray[Any]:
    """A (k, j, i) or (k, j, i, component) view of the voxels of a `vtkImageData`, not a copy."""
    from vtk.util import numpy_support

    scalars = image.GetPointData().GetScalars()
    shape = tuple(reversed(image.GetDimensions()))
    if scalars.GetNumberOfComponents() > 1:
        shape = (*shape, scalars.GetNumberOfComponents())
    return numpy_support.vtk_to_numpy(scalars).reshape(shape)


def oriented_image(array: NDArray[Any], matrix: Matrix, lower: Sequence[int] = (0, 0, 0)) -> Any:
    """A `vtkOrientedImageData` of a (k, j, i) array whose first voxel has the index `lower` (k, j, i).

    `matrix` is the whole grid's IJK→RAS: the extent carries the offset, so a cropped array needs no other matrix.
    """
    image = slicer_module().vtkOrientedImageData()
    image.SetExtent(*extent_of(lower, array.shape))
    image.SetImageToWorldMatrix(to_vtk_matrix(matrix))
    image.GetPointData().SetScalars(to_vtk_array(array))
    return image


def extent_of(lower: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int, int, int, int]:
    """The vtk extent (i0, i1, j0, j1, k0, k1) of a box given by its first voxel and shape, both (k, j, i)."""
    (k, j, i), (nk, nj, ni) = (map(int, lower), map(int, shape))
    return i, i + ni - 1, j, j + nj - 1, k, k + nk - 1


def box_of_extent(extent: Sequence[int]) -> Box:
    """A vtk extent as (lower, upper) in (k, j, i), upper not included; equal where the extent is empty."""
    i0, i1, j0, j1, k0, k1 = extent
    if i1 < i0 or j1 < j0 or k1 < k0:
        return (0, 0, 0), (0, 0, 0)
    return (k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1)


def bounding_box(mask: NDArray[Any]) -> Box | None:
    """(lower, upper) of the voxels that are not zero, (k, j, i), upper not included; None when there is none."""
    lower: list[int] = []
    upper: list[int] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if found.size == 0:
            return None
        lower.append(int(found[0]))
        upper.append(int(found[-1]) + 1)
    return (lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2])


def same_lattice(matrix: Matrix, other: Matrix, upper: Sequence[int]) -> bool:
    """Whether both matrices put the voxels up to `upper` (k, j, i) at the same place (to 1/1000 of a voxel)."""
    corners = np.array([[i, j, k, 1.0] for k in (0, upper[0]) for j in (0, upper[1]) for i in (0, upper[2])]).T
    apart = np.linalg.inv(other) @ (matrix @ corners) - corners
    return bool(np.abs(apart).max() <= _SAME_LATTICE_VOXELS)


def whole_voxel_shift(matrix: Matrix, other: Matrix, upper: Sequence[int]) -> tuple[int, int, int] | None:
    """Steps (k, j, i) to add to an index of the first lattice to get the same voxel's index on the other.

    None where the lattices do not coincide up to `upper` (k, j, i): mask values must be resampled then.
    """
    between = (np.linalg.inv(other) @ matrix)[:3, 3]
    steps = np.rint(between)
    shifted = matrix.copy()
    shifted[:3, 3] -= matrix[:3, :3] @ steps
    if not same_lattice(shifted, other, upper):
        return None
    return int(steps[2]), int(steps[1]), int(steps[0])


def resampled_mask(mask: NDArray[Any], matrix: Matrix, lower: Sequence[int], onto: Matrix) -> Any:
    """A mask (k, j, i) that starts at voxel `lower` of one lattice, as an image on another lattice, nearest voxel.

    Nothing is cut off: the extent grows to hold all of it.
    """
    slicer = slicer_module()
    # A rim of zeros: at the edge of an image vtk's resampling repeats the outermost voxels a little too far.
    image = oriented_image(np.pad(mask.astype(np.uint8), 1), matrix, [int(start) - 1 for start in lower])
    reference = slicer.vtkOrientedImageData()
    reference.SetExtent(image.GetExtent())
    reference.SetImageToWorldMatrix(to_vtk_matrix(onto))
    result = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, reference, result, False, True):
        raise InputError("The mask could not be brought onto the segmentation's grid. Check its transforms for zeros.")
    return result


def image_matrix(image: Any) -> Matrix:
    """The IJK→RAS matrix of a `vtkOrientedImageData`, in the frame of the node that holds it."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return from_vtk_matrix(matrix)
