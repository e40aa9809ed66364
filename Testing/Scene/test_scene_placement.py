"""Where things land: checked in world millimetres on the MRML nodes themselves, not with the code under test."""

from __future__ import annotations

import numpy as np
import pytest
import vtk
from scene_support import MOVED, OBLIQUE, OTHER, add_image, add_transform, axis_orders, placed, rotation, solid_box

from LKSegmentLib.scene.overlays import map_node
from LKSegmentLib.scene.segments import SegmentWriter, ensure_segment, ensure_segmentation, import_labels, mask_on
from LKSegmentLib.scene.terminology import label_entries
from LKSegmentLib.scene.volumes import grid_of, volume_of
from LKSegmentLib.volumes import Volume

SHAPE = (12, 14, 16)
BOX = solid_box((3, 2, 6), (4, 7, 5))
ANISOTROPIC = placed(np.eye(3), (0.4, 0.4, 6.0), (5.0, -7.0, 11.0))
SHEARED = OBLIQUE @ np.array([[1, 0.2, 0, 0], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def to_world(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def expected_places(image_node) -> np.ndarray:
    """World mm of the box's voxels, from the volume node's own matrix and transform."""
    matrix = vtk.vtkMatrix4x4()
    image_node.GetIJKToRASMatrix(matrix)
    own = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    kji = np.argwhere(BOX.full(SHAPE))
    ijk = np.column_stack([kji[:, ::-1], np.ones(len(kji))])
    return (to_world(image_node) @ own @ ijk.T).T[:, :3]


def segment_places(segmentation_node, segment_id) -> np.ndarray:
    """World mm of the segment's voxels, from its labelmap, point by point through vtk."""
    image = segmentation_node.GetSegmentation().GetSegment(segment_id).GetRepresentation("Binary labelmap")
    value = segmentation_node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    own = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    places = [
        (i, j, k, 1.0)
        for k in range(k0, k1 + 1)
        for j in range(j0, j1 + 1)
        for i in range(i0, i1 + 1)
        if image.GetScalarComponentAsDouble(i, j, k, 0) == value
    ]
    return (to_world(segmentation_node) @ own @ np.array(places).T).T[:, :3]


def half_voxel(image_node) -> float:
    return 0.5 * min(grid_of(image_node).spacing)


def written_segment(context, image_node, segmentation_node=None):
    segmentation = segmentation_node or ensure_segmentation(context, image_node, "result")
    segment_id = ensure_segment(segmentation, "liver")
    assert SegmentWriter(context).write(segmentation, segment_id, BOX, image_node)
    return segmentation, segment_id


@pytest.mark.parametrize("number", range(48))
def test_mask_and_map_land_in_all_48_axis_orders(context, number):
    image = add_image(context, placed(axis_orders()[number], (0.8, 1.3, 2.1), (-11.0, 23.0, 57.0)), shape=SHAPE)
    segmentation, segment_id = written_segment(context, image)
    expected = expected_places(image)
    found = segment_places(segmentation, segment_id)
    assert len(found) == len(expected)
    assert np.linalg.norm(found.mean(axis=0) - expected.mean(axis=0)) < 1e-3
    assert np.allclose(np.sort(found.round(3), axis=0), np.sort(expected.round(3), axis=0), atol=2e-3)
    assert map_offset(context, image) < half_voxel(image)


@pytest.mark.parametrize("matrix", [OBLIQUE, ANISOTROPIC, SHEARED], ids=["oblique", "anisotropic", "sheared"])
@pytest.mark.parametrize("moved", [False, True], ids=["no transform", "linear transform"])
def test_mask_and_map_land_on_difficult_grids(context, matrix, moved):
    image = add_image(context, matrix, shape=SHAPE)
    if moved:
        image.SetAndObserveTransformNodeID(add_transform(context, MOVED).GetID())
    segmentation, segment_id = written_segment(context, image)
    found, expected = segment_places(segmentation, segment_id), expected_places(image)
    assert len(found) == len(expected)
    assert np.linalg.norm(found.mean(axis=0) - expected.mean(axis=0)) < half_voxel(image)
    assert np.array_equal(mask_on(segmentation, segment_id, grid_of(image)), BOX.full(SHAPE))
    assert map_offset(context, image) < half_voxel(image)


@pytest.mark.parametrize("matrix", [OBLIQUE, placed(np.eye(3), (1.0, 1.0, 1.5), (3.0, 4.0, 5.0))])
def test_a_segmentation_under_another_transform_gets_the_mask_where_the_image_is(context, matrix):
    image = add_image(context, matrix, shape=SHAPE)
    segmentation = ensure_segmentation(context, image, "moved away")
    image.SetAndObserveTransformNodeID(add_transform(context, MOVED, "of the image").GetID())
    segmentation.SetAndObserveTransformNodeID(add_transform(context, OTHER, "of the segments").GetID())
    _, segment_id = written_segment(context, image, segmentation)
    found, expected = segment_places(segmentation, segment_id), expected_places(image)
    assert np.linalg.norm(found.mean(axis=0) - expected.mean(axis=0)) < half_voxel(image)
    # Resampled to a turned lattice the number of voxels changes a little at the surface, the size does not.
    assert len(found) == pytest.approx(len(expected), rel=0.2)
    assert segmentation.GetParentTransformNode().GetName() == "of the segments"


def test_labels_under_another_transform_land_too(context):
    image = add_image(context, OBLIQUE, shape=SHAPE)
    segmentation = ensure_segmentation(context, image, "moved away")
    image.SetAndObserveTransformNodeID(add_transform(context, MOVED).GetID())
    segmentation.SetAndObserveTransformNodeID(add_transform(context, OTHER, "other").GetID())
    labels = BOX.full(SHAPE).astype(np.uint16)
    ids = import_labels(segmentation, labels, label_entries(["liver"]), grid_of(image).ijk_to_ras)
    found, expected = segment_places(segmentation, ids[1]), expected_places(image)
    assert len(found) == len(expected)
    assert np.linalg.norm(found.mean(axis=0) - expected.mean(axis=0)) < 1e-3


def test_a_segmentation_of_a_cropped_image_takes_the_mask_voxel_for_voxel(context):
    image = add_image(context, OBLIQUE, shape=SHAPE)
    whole = volume_of(image)
    crop = whole.grid.cropped((2, 1, 3), (10, 12, 14))
    part = add_image(context, crop.ijk_to_ras, "part", shape=crop.shape)
    segmentation = ensure_segmentation(context, part, "result")
    segment_id = ensure_segment(segmentation, "liver")
    SegmentWriter(context).write(segmentation, segment_id, BOX, image)
    assert np.array_equal(mask_on(segmentation, segment_id, whole.grid), BOX.full(SHAPE))
    assert np.allclose(segment_places(segmentation, segment_id).mean(axis=0), expected_places(image).mean(axis=0))


def test_a_mask_of_a_coarse_image_lands_in_a_segmentation_of_a_fine_one(context):
    fine = add_image(context, placed(rotation(10, (0, 0, 1))[:3, :3], (0.5, 0.5, 0.5), (0, 0, 0)), shape=(40, 40, 40))
    coarse = add_image(context, placed(np.eye(3), (1.0, 1.0, 1.0), (0.0, 2.0, 1.0)), "coarse", shape=SHAPE)
    segmentation = ensure_segmentation(context, fine, "fine")
    _, segment_id = written_segment(context, coarse, segmentation)
    found, expected = segment_places(segmentation, segment_id), expected_places(coarse)
    assert np.linalg.norm(found.mean(axis=0) - expected.mean(axis=0)) < half_voxel(coarse)
    assert len(found) * 0.125 == pytest.approx(len(expected), rel=0.1)  # the same cubic millimetres


def map_offset(context, image) -> float:
    """Distance in mm between where a map of the box shows the box and where the box is."""
    volume = volume_of(image)
    values = BOX.full(SHAPE).astype(np.float32)
    node = map_node(context, "box", Volume(values, volume.ijk_to_ras), {}, image)
    own = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(own)
    matrix = np.array([[own.GetElement(row, column) for column in range(4)] for row in range(4)])
    kji = np.argwhere(volume_of(node).array > 0.5)
    ijk = np.column_stack([kji[:, ::-1], np.ones(len(kji))])
    places = (to_world(node) @ matrix @ ijk.T).T[:, :3]
    return float(np.linalg.norm(places.mean(axis=0) - expected_places(image).mean(axis=0)))
