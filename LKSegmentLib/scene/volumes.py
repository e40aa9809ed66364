"""Volume nodes ↔ `Volume`. A `Volume` lives in world RAS: linear parent transforms are applied on the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext, require_node
from LKSegmentLib.scene.geometry import (
    Matrix,
    from_vtk_matrix,
    image_array,
    local_to_world,
    share_parent_transform,
    to_vtk_array,
    to_vtk_matrix,
)
from LKSegmentLib.volumes import Grid, Volume


def volume_of(node: Node, component: int | None = None) -> Volume:
    """A copy of the node's voxels (k, j, i) with its IJK→world RAS matrix, linear parent transforms applied.

    `component` picks one component of a node with several (a time frame, a colour channel).

    Raises InputError: no node or not a volume node; a node without image data; several components and none
    chosen; a non-linear parent transform; a matrix that cannot place the voxels.
    """
    if node is not None and node.IsA("vtkMRMLSequenceNode"):
        raise InputError(
            f"'{node.GetName()}' is a sequence. Choose the volume that the Sequences module shows of it: "
            "that one follows the frame you select."
        )
    volume_node = require_node(node, "vtkMRMLVolumeNode", "input volume")
    array = _voxels(volume_node)
    if array.ndim == 4:
        array = _one_component(volume_node, array, component)
    return Volume(np.array(array, order="C"), _world_matrix(volume_node))


def grid_of(node: Node) -> Grid:
    """Where the node's voxels are, in world RAS, without copying them. Raises InputError as `volume_of` does."""
    volume_node = require_node(node, "vtkMRMLVolumeNode", "input volume")
    k, j, i = _voxels(volume_node).shape[:3]
    return Grid((k, j, i), _world_matrix(volume_node))


def add_volume_node(
    context: SceneContext, volume: Volume, name: str, like: Node | None = None, copy: bool = True
) -> Node:
    """Add a scalar volume node that shows this `Volume` where it belongs.

    With `like`, the new node goes under the parent transform of that node, so that both move together, and where
    both grids agree it takes over that node's matrix to the last bit. Voxel types MRML cannot hold are widened
    (bool → uint8, float16 → float32, int64 → int32 where it fits, else float64).

    Raises InputError for a `Volume` with several channels, and when `like` is under a non-linear transform.
    """
    node = context.add_node("vtkMRMLScalarVolumeNode", name)
    try:
        set_volume(node, volume, like, copy)
    except InputError:
        context.scene.RemoveNode(node)
        raise
    return node


def set_volume(node: Node, volume: Volume, like: Node | None = None, copy: bool = True) -> None:
    """Replace voxels and geometry of a scalar volume node, as `add_volume_node` describes.

    `copy` False: the node shares the voxels of the `Volume`, where they can be shared, which takes no time.
    """
    import vtk

    if volume.array.ndim != 3:
        raise InputError(f"A volume node shows one channel, but this volume has {volume.channels}. Choose one.")
    array = _storable(volume.array)
    matrix = volume.ijk_to_ras
    if like is not None:
        matrix = _matrix_beside(volume, like)
        share_parent_transform(node, like)
    else:
        matrix = np.linalg.inv(local_to_world(node, "volume")) @ matrix
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(array.shape))
    image.GetPointData().SetScalars(to_vtk_array(array, copy))
    was_modifying = node.StartModify()
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(to_vtk_matrix(matrix))
    node.EndModify(was_modifying)


def ijk_to_local(node: Node) -> Matrix:
    """The node's own IJK→RAS matrix, before parent transforms."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return from_vtk_matrix(matrix)


def _world_matrix(node: Node) -> Matrix:
    result: Matrix = local_to_world(node, "volume") @ ijk_to_local(node)
    return result


def _matrix_beside(volume: Volume, like: Node) -> Matrix:
    to_world = local_to_world(like, "volume")
    own = ijk_to_local(like)
    if volume.grid.matches(Grid(volume.grid.shape, to_world @ own), tolerance_mm=1e-6):
        return own
    result: Matrix = np.linalg.inv(to_world) @ volume.ijk_to_ras
    return result


def _voxels(node: Node) -> NDArray[Any]:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"The volume '{node.GetName()}' holds no voxels. Load or compute its image first.")
    return image_array(image)


def _one_component(node: Node, array: NDArray[Any], component: int | None) -> NDArray[Any]:
    count = array.shape[-1]
    if component is None:
        raise InputError(
            f"The volume '{node.GetName()}' has {count} values in each voxel (colour, vector or frames). Make a "
            "scalar volume of the one you want, for example with the module Vector to Scalar Volume, and choose that."
        )
    if not 0 <= component < count:
        raise InputError(f"The volume '{node.GetName()}' has {count} components: 0 to {count - 1}, not {component}.")
    chosen: NDArray[Any] = array[..., component]
    return chosen


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype in (np.int64, np.uint64):
        fits = array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31)
        return array.astype(np.int32 if fits else np.float64)
    return array
