"""What the clicks give so far, shown but not yet part of the user's segmentation.

The preview is a segment in a segmentation node of its own. The user's segmentation is not touched before
`accept`: its undo and redo history, its layers and its bits stay as they are, and cancelling is removing one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, slicer_module
from LKSegmentLib.scene.geometry import (
    box_of_extent,
    image_array,
    image_matrix,
    local_to_world,
    oriented_image,
    share_parent_transform,
)
from LKSegmentLib.scene.masks import Mode, binary_labelmap, changes_to
from LKSegmentLib.scene.segmentations import ensure_segment, place_beside
from LKSegmentLib.scene.segments import MaskRegion, SegmentWriter
from LKSegmentLib.scene.terminology import Color
from LKSegmentLib.scene.volumes import grid_of, ijk_to_local

DEFAULT_NAME = "lk_click preview"
DEFAULT_COLOR: Color = (1.0, 0.78, 0.16)
_SEGMENT_ID = "lk_click_preview"
_ATTRIBUTE = "LKSegment.preview"


class ClickPreview:
    """The one preview of a scene: `show` it, then `accept` it into a segment or `cancel` it.

    It survives whatever happens to nodes meanwhile: renamed, it is found; deleted, it is made anew by the next
    `show`; and when the target or the volume goes, it stays until it is accepted elsewhere or cancelled.
    """

    def __init__(self, context: SceneContext, name: str = DEFAULT_NAME, color: Color = DEFAULT_COLOR) -> None:
        self._context = context
        self._name = name
        self._color = color
        self._node: Node | None = None

    @property
    def node(self) -> Node | None:
        """The segmentation node that holds the preview; None while there is none."""
        return self._node if is_in_scene(self._node, self._context.scene) else None

    @property
    def volume(self) -> Node | None:
        """The volume that the preview was made from; None when there is no preview, or the volume is gone."""
        role = slicer_module().vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        volume = self.node.GetNodeReference(role) if self.node is not None else None
        return volume if is_in_scene(volume, self._context.scene) else None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be accepted."""
        return self._voxels() is None

    def show(self, box: MaskRegion, volume_node: Node) -> None:
        """Make the preview show this mask on the volume's grid. Only the voxels that differ are sent.

        Raises InputError: no volume, a non-linear parent transform, or a box that lies outside the volume.
        """
        grid = grid_of(volume_node)
        _check_box(box, grid.shape)
        node = self._ensure_node(volume_node)
        self._ensure_segment(node)
        share_parent_transform(node, volume_node)
        segment = node.GetSegmentation().GetSegment(_SEGMENT_ID)
        changes = changes_to(
            segment, ijk_to_local(volume_node), tuple(box.lower), np.asarray(box.array) != 0, "replace"
        )
        was_modifying = node.StartModify()
        for modification, lower, change in changes:
            self._send(node, modification, lower, change, ijk_to_local(volume_node))
        node.EndModify(was_modifying)

    def accept(
        self,
        writer: SegmentWriter,
        segmentation_node: Node,
        segment_id: str,
        volume_node: Node | None = None,
        mode: Mode = "add",
        new_name: str = "",
    ) -> bool:
        """Write the preview, as it stands in the scene, into a segment as one undo step, and remove the preview.

        new_name: see `SegmentWriter.write_region`.
        True when that changed the segment. When the writer refuses (InputError), the preview stays.
        """
        voxels = self._voxels()
        if voxels is None:
            raise InputError("There is no preview to accept. Click on a structure first.")
        lower, array, image = voxels
        matrix = local_to_world(self.node, "preview") @ image_matrix(image)
        source = volume_node if is_in_scene(volume_node, self._context.scene) else None
        changed = writer.write_region(segmentation_node, segment_id, lower, array, matrix, mode, source, new_name)
        self.cancel()
        return changed

    def cancel(self) -> None:
        """Remove the preview. The user's segmentation has never been touched by it."""
        if self.node is not None:
            self._context.remove_node(self.node)
        self._node = None

    def _voxels(self) -> tuple[Sequence[int], NDArray[Any], Any] | None:
        node = self.node
        segment = node.GetSegmentation().GetSegment(_SEGMENT_ID) if node is not None else None
        if segment is None:
            return None
        image = segment.GetRepresentation(binary_labelmap())
        if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
            return None
        array = image_array(image) == segment.GetLabelValue()
        return (box_of_extent(image.GetExtent())[0], array, image) if array.any() else None

    def _ensure_node(self, volume_node: Node) -> Node:
        role = slicer_module().vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        if self.node is not None and self.node.GetNodeReferenceID(role) != volume_node.GetID():
            self.cancel()  # a preview belongs to one image
        if self.node is None:
            node = self._context.add_node("vtkMRMLSegmentationNode", self._name)
            node.SetAttribute(_ATTRIBUTE, "1")
            node.SetSaveWithScene(False)
            node.CreateDefaultDisplayNodes()
            share_parent_transform(node, volume_node)
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
            place_beside(self._context, node, volume_node)
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetOpacity2DFill(0.35)
            display.SetOpacity2DOutline(1.0)
            self._node = node
        return self._node

    def _ensure_segment(self, node: Node) -> None:
        ensure_segment(node, self._name, self._color, None, _SEGMENT_ID)

    def _send(
        self, node: Node, modification: str, lower: Sequence[int], change: NDArray[np.bool_], matrix: Any
    ) -> None:
        logic = slicer_module().vtkSlicerSegmentationsModuleLogic
        values, mode = (change, logic.MODE_MERGE_MASK) if modification == "Add" else (~change, logic.MODE_MERGE_MIN)
        image = oriented_image(values.astype(np.uint8), matrix, lower)
        logic.SetBinaryLabelmapToSegment(image, node, _SEGMENT_ID, mode, list(image.GetExtent()))


def remove_left_over_previews(context: SceneContext) -> int:
    """Remove previews that nobody holds any more (after a reload of the module); how many there were."""
    scene = context.scene
    nodes = [
        scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"))
    ]
    left_over = [node for node in nodes if node.GetAttribute(_ATTRIBUTE)]
    for node in left_over:
        context.remove_node(node)
    return len(left_over)


def _check_box(box: MaskRegion, shape: Sequence[int]) -> None:
    array = np.asarray(box.array)
    if array.size == 0:
        return
    upper = [int(start) + size for start, size in zip(box.lower, array.shape, strict=True)]
    if min(int(start) for start in box.lower) < 0 or any(end > size for end, size in zip(upper, shape, strict=True)):
        raise InputError(
            f"The mask reaches from voxel {tuple(box.lower)} to {tuple(upper)} (k, j, i), beyond the volume's "
            f"{tuple(shape)} voxels. The volume was changed after the mask was computed: click again."
        )
