"""Masks → segments, through the Segment Editor's own logic: undo, masks and overwrite mode as the user set them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, require_node, slicer_module
from LKSegmentLib.scene.geometry import Matrix, image_matrix, local_to_world, oriented_image
from LKSegmentLib.scene.masks import Mode, changes_to, mask_on_lattice
from LKSegmentLib.scene.segmentations import (
    PreparedLabels,
    add_labels,
    editable_segmentation,
    ensure_segment,
    ensure_segmentation,
    import_labels,
    mask_on,
    preparing_labels,
    require_segment,
    segment_ids,
)
from LKSegmentLib.scene.terminology import LabelEntry
from LKSegmentLib.scene.volumes import ijk_to_local

__all__ = [
    "MaskRegion",
    "Mode",
    "SegmentWriter",
    "ensure_segment",
    "ensure_segmentation",
    "import_labels",
    "mask_on",
    "require_segment",
    "segment_ids",
]

#: Singleton tag of the node that holds the Segment Editor module's settings (masks, overwrite mode).
SEGMENT_EDITOR_TAG = "SegmentEditor"


class MaskRegion(Protocol):
    """A mask's bounding box on a grid: `array` (k, j, i) starts at voxel `lower` (k, j, i); may be empty."""

    @property
    def lower(self) -> Any: ...

    @property
    def array(self) -> NDArray[Any]: ...


class SegmentWriter:
    """Writes masks into segments of the user's segmentation. Each `write` or `import_labels` is one undo step.

    The user's settings in the Segment Editor (editable area, intensity range, overwrite mode) are read anew
    before each write and obeyed.

    Args:
        settings_node: the `vtkMRMLSegmentEditorNode` to take settings from; by default the Segment Editor module's.
        save_state: called with the segmentation node before a change; returns True when it has saved the state
            for the user's own undo (in the application: the Segment Editor widget, if it edits this
            segmentation). Where it is missing or returns False, `undo` here goes back.
    """

    def __init__(
        self,
        context: SceneContext,
        settings_node: Node | None = None,
        save_state: Callable[[Node], bool] | None = None,
        undo_states: int = 10,
    ) -> None:
        self._context = context
        self._settings_node = settings_node
        self._save_state = save_state
        self.logic = slicer_module().vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(context.scene)
        self.logic.SetMaximumNumberOfUndoStates(undo_states)
        self._editor_node: Node = None
        self._connect_editor()

    def write(
        self, segmentation_node: Node, segment_id: str, box: MaskRegion, volume_node: Node, mode: Mode = "add"
    ) -> bool:
        """Write a mask on the volume's grid into a segment; True when that changed anything it may change.

        mode: "add" the mask to the segment, "remove" it, or "replace" the segment by it. Only the box of voxels
        that differ is sent. Raises InputError: unknown segment, a segmentation without labelmaps, a non-linear
        transform, a mask segment of the editor that does not exist, settings that let none of it be written.
        """
        require_node(volume_node, "vtkMRMLScalarVolumeNode", "input volume")
        matrix = local_to_world(volume_node, "volume") @ ijk_to_local(volume_node)
        return self.write_region(segmentation_node, segment_id, box.lower, box.array, matrix, mode, volume_node)

    def write_region(
        self,
        segmentation_node: Node,
        segment_id: str,
        lower: Sequence[int],
        array: NDArray[Any],
        ijk_to_world: Matrix,
        mode: Mode = "add",
        volume_node: Node | None = None,
        new_name: str = "",
    ) -> bool:
        """`write` for a mask array (k, j, i) that starts at voxel `lower` of a grid given by its world matrix.

        new_name: make the segment, with this name, within the same undo step; `segment_id` must be free. Where the
        write is refused, it is not left behind.
        """
        editable_segmentation(segmentation_node)
        if not new_name:
            require_segment(segmentation_node, segment_id)
        if mode not in ("add", "remove", "replace"):
            raise InputError(f"A mask can be written with mode add, remove or replace, not '{mode}'.")
        self._connect_editor()
        self._connect(segmentation_node, "" if new_name else segment_id, volume_node)
        lattice = self._lattice(segmentation_node, ijk_to_world)
        lower, mask = mask_on_lattice(segmentation_node, lower, array, ijk_to_world, lattice)
        if new_name:
            if not mask.any():
                raise InputError(
                    f"Nothing of the mask is left on the voxels of '{segmentation_node.GetName()}'. "
                    "Choose a segmentation with smaller voxels."
                )
            self._save(segmentation_node)  # before the segment is there, so that undo takes it back too
            ensure_segment(segmentation_node, new_name, identifier=segment_id)
            self._connect(segmentation_node, segment_id, volume_node)
        segment = require_segment(segmentation_node, segment_id)
        changes = changes_to(segment, lattice, lower, mask, mode)
        if not changes:
            return False
        if not new_name:
            self._save(segmentation_node)
        for modification, change_lower, change in changes:
            self._modify(segmentation_node, segment_id, modification, change_lower, change, lattice)
        if _voxels_in(changes_to(segment, lattice, lower, mask, mode)) == _voxels_in(changes):
            if new_name:
                segmentation_node.GetSegmentation().RemoveSegment(segment_id)
            raise InputError(
                "Nothing was written: the Segment Editor's editable area or intensity range allows no voxel of it. "
                "Change them under Masking in the Segment Editor."
            )
        return True

    def add_labels(
        self, segmentation_node: Node, prepared: PreparedLabels | None, ijk_to_world: Matrix
    ) -> dict[int, str]:
        """`segmentations.add_labels` as one undo step."""
        editable_segmentation(segmentation_node)
        local_to_world(segmentation_node, "segmentation")  # refuses a non-linear transform before anything is saved
        self._connect_editor()
        if self._editor_node.GetSegmentationNode() is not segmentation_node:
            # The user's settings limit what changes in segments that are there; new ones are added whole.
            self.logic.SetSegmentationNode(segmentation_node)
        self._save(segmentation_node)
        return add_labels(segmentation_node, prepared, ijk_to_world)

    def import_labels(
        self,
        segmentation_node: Node,
        labels: NDArray[Any],
        entries: Sequence[LabelEntry],
        ijk_to_world: Matrix,
    ) -> dict[int, str]:
        """`segmentations.import_labels` as one undo step."""
        preparing = preparing_labels(labels, entries)
        while True:
            try:
                next(preparing)
            except StopIteration as end:
                return self.add_labels(segmentation_node, end.value, ijk_to_world)

    def can_undo(self) -> bool:
        return self._has_target() and bool(self.logic.CanUndo())

    def can_redo(self) -> bool:
        return self._has_target() and bool(self.logic.CanRedo())

    def undo(self) -> None:
        """Take back the last write that `save_state` has not taken over. InputError when there is none."""
        if not self.can_undo():
            raise InputError("There is nothing to undo in this segmentation.")
        self.logic.Undo()

    def redo(self) -> None:
        """Do again what `undo` took back. InputError when there is nothing."""
        if not self.can_redo():
            raise InputError("There is nothing to redo in this segmentation.")
        self.logic.Redo()

    def _has_target(self) -> bool:
        scene = self._context.scene
        return is_in_scene(self._editor_node, scene) and is_in_scene(self._editor_node.GetSegmentationNode(), scene)

    def _connect_editor(self) -> None:
        """A settings node of our own: choosing a segmentation in it must not change what anyone else has open."""
        if not is_in_scene(self._editor_node, self._context.scene):  # at first, and after a scene was closed
            node = slicer_module().vtkMRMLSegmentEditorNode()
            node.SetName("LKSegment writer")
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            self._editor_node = self._context.scene.AddNode(node)
            self.logic.SetSegmentEditorNode(self._editor_node)

    def _connect(self, segmentation_node: Node, segment_id: str, volume_node: Node | None) -> None:
        editor = self._editor_node
        if editor.GetSegmentationNode() is not segmentation_node:
            self.logic.SetSegmentationNode(segmentation_node)
        editor.SetAndObserveSourceVolumeNode(volume_node)
        editor.SetSelectedSegmentID(segment_id)
        self._take_over_settings(segmentation_node, volume_node)
        self.logic.UpdateMaskLabelmap()

    def _take_over_settings(self, segmentation_node: Node, volume_node: Node | None) -> None:
        editor = self._editor_node
        user = self._settings_node
        if not is_in_scene(user):
            user = self._context.scene.GetSingletonNode(SEGMENT_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if user is None:
            editor.SetOverwriteMode(editor.OverwriteAllSegments)
            editor.SetMaskMode(slicer_module().vtkMRMLSegmentationNode.EditAllowedEverywhere)
            editor.SetSourceVolumeIntensityMask(False)
            return
        if user.GetMaskMode() == slicer_module().vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment:
            require_segment(segmentation_node, user.GetMaskSegmentID())
        if user.GetSourceVolumeIntensityMask() and volume_node is None:
            raise InputError(
                "The Segment Editor's intensity range needs the input volume, which is gone. Switch it off."
            )
        editor.SetOverwriteMode(user.GetOverwriteMode())
        editor.SetMaskMode(user.GetMaskMode())
        editor.SetMaskSegmentID(user.GetMaskSegmentID())
        editor.SetSourceVolumeIntensityMask(user.GetSourceVolumeIntensityMask())
        editor.SetSourceVolumeIntensityMaskRange(*user.GetSourceVolumeIntensityMaskRange())

    def _lattice(self, segmentation_node: Node, ijk_to_world: Matrix) -> Matrix:
        """The lattice the segmentation keeps its labelmaps on, in its own frame; the mask's where it has none."""
        slicer = slicer_module()
        geometry = self.logic.GetReferenceImageGeometryString()
        reference = slicer.vtkOrientedImageData()
        if geometry and slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, reference, False):
            return image_matrix(reference)
        result: Matrix = np.linalg.inv(local_to_world(segmentation_node, "segmentation")) @ ijk_to_world
        return result

    def _save(self, segmentation_node: Node) -> None:
        if self._save_state is not None and self._save_state(segmentation_node):
            return
        if not self.logic.SaveStateForUndo():
            raise RunError("The segmentation's state could not be saved for undo, so nothing was written.")

    def _modify(
        self,
        node: Node,
        segment_id: str,
        modification: str,
        lower: Sequence[int],
        change: NDArray[Any],
        lattice: Matrix,
    ) -> None:
        image = oriented_image(change.astype(np.uint8), lattice, lower)
        mode = getattr(self.logic, f"ModificationMode{modification}")
        self.logic.ModifySegmentByLabelmap(node, segment_id, image, mode, list(image.GetExtent()), True, False)


def _voxels_in(changes: Sequence[tuple[str, Sequence[int], NDArray[np.bool_]]]) -> int:
    return sum(int(change.sum()) for _, _, change in changes)
