from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from scene_support import MOVED, OBLIQUE, add_image, add_transform, image_of
from vtk.util import numpy_support

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.volumes import add_volume_node, grid_of, volume_of
from LKSegmentLib.volumes import Grid, Volume


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_voxels_and_geometry_come_back_to_the_last_bit(context, dtype):
    volume = Volume(image_of(OBLIQUE).array.astype(dtype), OBLIQUE)
    back = volume_of(add_volume_node(context, volume, "CT"))
    assert back.array.dtype == volume.array.dtype
    assert np.array_equal(back.array, volume.array)
    assert np.allclose(back.ijk_to_ras, OBLIQUE, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "stored"), [("bool", "uint8"), ("float16", "float32"), ("int64", "int32")])
def test_voxel_types_mrml_cannot_hold_are_widened(context, dtype, stored):
    volume = Volume((image_of(OBLIQUE).array > 0).astype(dtype), OBLIQUE)
    back = volume_of(add_volume_node(context, volume, "mask"))
    assert back.array.dtype == stored
    assert np.array_equal(back.array, volume.array.astype(stored))


def test_integers_too_large_for_mrml_become_float64(context):
    volume = Volume(np.full((2, 2, 2), 2**40, dtype=np.int64), np.eye(4))
    assert volume_of(add_volume_node(context, volume, "big")).array[0, 0, 0] == float(2**40)


def test_the_volume_is_a_copy(context):
    node = add_image(context)
    volume = volume_of(node)
    before = volume.array.copy()
    numpy_support.vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())[:] = 7
    assert np.array_equal(volume.array, before)


def test_linear_parent_transforms_are_applied_through_all_levels(context):
    node = add_image(context)
    inner, outer = add_transform(context, MOVED), add_transform(context, np.diag([2.0, 1.0, 1.0, 1.0]), "outer")
    inner.SetAndObserveTransformNodeID(outer.GetID())
    node.SetAndObserveTransformNodeID(inner.GetID())
    expected = np.diag([2.0, 1.0, 1.0, 1.0]) @ MOVED @ OBLIQUE
    assert np.allclose(volume_of(node).ijk_to_ras, expected, atol=1e-9)
    assert np.allclose(grid_of(node).ijk_to_ras, expected, atol=1e-9)


def test_a_nonlinear_parent_transform_is_refused_by_name(context):
    node = add_image(context, name="Chest")
    transform = context.add_node("vtkMRMLTransformNode", "breathing")
    warp = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    targets = vtk.vtkPoints()
    for index, corner in enumerate([(0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50)]):
        points.InsertNextPoint(corner)
        targets.InsertNextPoint(corner[0] + index**2, corner[1], corner[2])
    warp.SetSourceLandmarks(points)
    warp.SetTargetLandmarks(targets)
    warp.SetBasisToR()
    transform.SetAndObserveTransformToParent(warp)
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="'Chest' is under the non-linear transform 'breathing'"):
        volume_of(node)


def test_a_result_moves_with_the_volume_it_belongs_to(context):
    node = add_image(context)
    transform = add_transform(context, MOVED)
    node.SetAndObserveTransformNodeID(transform.GetID())
    result = volume_of(node).with_array(np.zeros((12, 14, 16), np.float32))
    beside = add_volume_node(context, result, "map", like=node)
    assert beside.GetParentTransformNode() is transform
    own, original = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    beside.GetIJKToRASMatrix(own)
    node.GetIJKToRASMatrix(original)
    assert [own.GetElement(r, c) for r in range(4) for c in range(4)] == [
        original.GetElement(r, c) for r in range(4) for c in range(4)
    ]


def test_a_result_on_a_grid_of_its_own_lands_in_the_world_under_the_transform(context):
    node = add_image(context)
    node.SetAndObserveTransformNodeID(add_transform(context, MOVED).GetID())
    coarse = volume_of(node).grid.with_spacing((4.0, 4.0, 5.0))
    beside = add_volume_node(context, Volume(np.zeros(coarse.shape, np.float32), coarse.ijk_to_ras), "map", like=node)
    assert grid_of(beside).matches(coarse, tolerance_mm=1e-6)


def test_several_components_are_refused_unless_one_is_chosen(context):
    node = context.add_node("vtkMRMLVectorVolumeNode", "photograph")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 3, 2)
    values = np.arange(4 * 3 * 2 * 3, dtype=np.uint8).reshape(-1, 3)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(values, deep=True))
    node.SetAndObserveImageData(image)
    with pytest.raises(InputError, match="'photograph' has 3 values in each voxel"):
        volume_of(node)
    assert np.array_equal(volume_of(node, component=1).array, values[:, 1].reshape(2, 3, 4))
    with pytest.raises(InputError, match="0 to 2, not 3"):
        volume_of(node, component=3)


def test_what_is_no_image_is_refused_with_a_sentence(context):
    empty = context.add_node("vtkMRMLScalarVolumeNode", "empty")
    gone = add_image(context, name="gone")
    context.scene.RemoveNode(gone)
    sequence = slicer.vtkMRMLSequenceNode()
    sequence.SetName("beating heart")
    for node, sentence in (
        (None, "No input volume is chosen"),
        (empty, "'empty' holds no voxels"),
        (gone, "'gone' is no longer in the scene"),
        (sequence, "'beating heart' is a sequence"),
        (context.add_node("vtkMRMLModelNode", "surface"), "does not fit here"),
    ):
        with pytest.raises(InputError, match=sentence):
            volume_of(node)


def test_a_volume_with_channels_leaves_no_half_made_node(context):
    before = context.scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="has 2"):
        add_volume_node(context, Volume(np.zeros((2, 3, 3, 3), np.float32), np.eye(4)), "two")
    assert context.scene.GetNumberOfNodes() == before


def test_a_single_slice_is_a_volume(context):
    grid = Grid((1, 5, 6), np.diag([1.0, 1.0, 8.0, 1.0]))
    node = add_volume_node(context, Volume(np.ones(grid.shape, np.float32), grid.ijk_to_ras), "slice")
    assert volume_of(node).grid == grid
