"""Segmentation nodes: making them beside a volume, finding and adding segments, importing many labels at once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.scene.core import Node, SceneContext, require_node, slicer_module
from LKSegmentLib.scene.geometry import Matrix, local_to_world, oriented_image, share_parent_transform
from LKSegmentLib.scene.masks import binary_labelmap, segment_on
from LKSegmentLib.scene.terminology import Color, LabelEntry, color_of, serialized_terminology
from LKSegmentLib.volumes import Grid


def ensure_segmentation(context: SceneContext, volume_node: Node, name: str) -> Node:
    """The segmentation of this name that belongs to the volume; a new one where there is none.

    A new one has the volume's geometry, parent transform and place in the subject hierarchy.
    """
    require_node(volume_node, "vtkMRMLScalarVolumeNode", "input volume")
    slicer = slicer_module()
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    for index in range(context.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = context.scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        if node.GetName() == name and node.GetNodeReferenceID(role) == volume_node.GetID():
            return node
    local_to_world(volume_node, "volume")  # refuses a non-linear transform before anything is made
    node = context.add_node("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    share_parent_transform(node, volume_node)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    place_beside(context, node, volume_node)
    return node


def place_beside(context: SceneContext, node: Node, volume_node: Node) -> None:
    """Put the node into the subject hierarchy folder (patient, study) of the volume."""
    slicer = slicer_module()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(context.scene)
    if hierarchy is None:
        return
    beside = hierarchy.GetItemByDataNode(volume_node)
    parent = hierarchy.GetItemParent(beside) if beside else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def ensure_segment(
    segmentation_node: Node,
    name: str,
    color: object = None,
    terminology: object = None,
    identifier: str | None = None,
) -> str:
    """The id of the segment with this identifier or, without one, this name; a new empty one where there is none.

    An existing segment keeps its name, colour and terminology. Raises InputError for a bad colour or terminology.
    """
    segmentation = editable_segmentation(segmentation_node).GetSegmentation()
    if identifier is not None and segmentation.GetSegment(identifier) is not None:
        return identifier
    if identifier is None:
        found = segmentation.GetSegmentIdBySegmentName(name)
        if found:
            return str(found)
    new_id = segmentation.AddEmptySegment(segmentation.GenerateUniqueSegmentID(identifier or name), name)
    describe_segment(
        segmentation.GetSegment(new_id), name, color_of(color, name), serialized_terminology(terminology, name)
    )
    return str(new_id)


def segment_ids(segmentation_node: Node) -> list[str]:
    """The ids of all segments, in order."""
    segmentation = require_node(segmentation_node, "vtkMRMLSegmentationNode", "segmentation").GetSegmentation()
    return [str(segmentation.GetNthSegmentID(index)) for index in range(segmentation.GetNumberOfSegments())]


def require_segment(segmentation_node: Node, segment_id: str | None) -> Any:
    """The `vtkSegment` of this id; InputError with a sentence where there is none.

    Every id goes through here before Slicer sees it: some of Slicer's calls crash on an unknown one.
    """
    node = require_node(segmentation_node, "vtkMRMLSegmentationNode", "target segmentation")
    segment = node.GetSegmentation().GetSegment(segment_id) if segment_id else None
    if segment is None:
        raise InputError(
            f"The segmentation '{node.GetName()}' has no segment '{segment_id or ''}'. "
            "It may have been deleted: choose or add another one."
        )
    return segment


def mask_on(segmentation_node: Node, segment_id: str, grid: Grid) -> NDArray[np.bool_]:
    """The segment as a bool array (k, j, i) on a grid in world RAS, wherever the segmentation's transforms put it.

    Voxel for voxel where the lattices agree, nearest neighbour otherwise. Raises InputError for an unknown segment.
    """
    segment = require_segment(segmentation_node, segment_id)
    editable_segmentation(segmentation_node)
    matrix = np.linalg.inv(local_to_world(segmentation_node, "segmentation")) @ grid.ijk_to_ras
    return segment_on(segment, matrix, (0, 0, 0), grid.shape)


@dataclass(frozen=True)
class PreparedLabels:
    """Labels as segments share them: `values` (k, j, i) from voxel `lower`, n + 1 where `entries[n]` is."""

    lower: tuple[int, int, int]
    values: NDArray[Any]
    entries: list[LabelEntry]


def preparing_labels(
    labels: NDArray[Any], entries: Sequence[LabelEntry]
) -> Generator[None, None, PreparedLabels | None]:
    """Crop and renumber `labels` (k, j, i), slice by slice: an event loop lives on while a large volume is prepared.

    Returns, as the generator's value, the labels that occur and have an entry; None where there are none.
    """
    # Slice by slice also because doing it at once takes memory of several times the volume.
    occurs = np.zeros(int(max((entry.value for entry in entries), default=0)) + 2, dtype=bool)
    slices, rows, columns = (np.zeros(length, dtype=bool) for length in labels.shape)
    for k, labels_of_slice in enumerate(labels):
        rows_of_slice = labels_of_slice.any(axis=1)
        if rows_of_slice.any():
            slices[k] = True
            rows |= rows_of_slice
            columns |= labels_of_slice.any(axis=0)
            found = np.flatnonzero(np.bincount(labels_of_slice[rows_of_slice].ravel()))
            occurs[np.minimum(found, len(occurs) - 1)] = True
        yield
    chosen = [entry for entry in entries if occurs[entry.value]]
    if not chosen:
        return None
    renumbered = np.zeros(len(occurs), dtype=np.uint8 if len(chosen) < 256 else np.uint16)
    for place, entry in enumerate(chosen, start=1):
        renumbered[entry.value] = place
    box = [np.flatnonzero(along) for along in (slices, rows, columns)]
    cropped = labels[tuple(slice(along[0], along[-1] + 1) for along in box)]
    values = np.empty(cropped.shape, renumbered.dtype)
    for k, labels_of_slice in enumerate(cropped):
        np.take(renumbered, labels_of_slice, out=values[k], mode="clip")
        yield
    k, j, i = (int(along[0]) for along in box)
    return PreparedLabels((k, j, i), values, chosen)


def import_labels(
    segmentation_node: Node, labels: NDArray[Any], entries: Sequence[LabelEntry], ijk_to_world: Matrix
) -> dict[int, str]:
    """Add a segment for each entry whose value occurs in `labels` (k, j, i); value → segment id.

    All new segments share one labelmap, so hundreds cost hardly more than one. Segments that are already there
    are not touched: an identifier that is taken gets a number. Values without an entry are left out.
    """
    preparing = preparing_labels(labels, entries)
    while True:
        try:
            next(preparing)
        except StopIteration as end:
            return add_labels(segmentation_node, end.value, ijk_to_world)


def add_labels(segmentation_node: Node, prepared: PreparedLabels | None, ijk_to_world: Matrix) -> dict[int, str]:
    """The second half of `import_labels`: value → segment id of what was prepared."""
    node = editable_segmentation(segmentation_node)
    if prepared is None:
        return {}
    slicer = slicer_module()
    to_local = np.linalg.inv(local_to_world(node, "segmentation"))
    image = oriented_image(prepared.values, to_local @ ijk_to_world, prepared.lower)
    segmentation = node.GetSegmentation()
    ids: dict[int, str] = {}
    was_modifying = node.StartModify()
    for place, entry in enumerate(prepared.entries, start=1):
        segment = slicer.vtkSegment()
        describe_segment(segment, entry.name, entry.color, entry.terminology)
        segment.SetLabelValue(place)
        segment.AddRepresentation(binary_labelmap(), image)
        identifier = segmentation.GenerateUniqueSegmentID(entry.identifier)
        if not segmentation.AddSegment(segment, identifier):
            raise RunError(f"The segment '{entry.name}' could not be added to '{node.GetName()}'.")
        ids[entry.value] = identifier
    node.EndModify(was_modifying)
    return ids


def editable_segmentation(segmentation_node: Node) -> Node:
    node = require_node(segmentation_node, "vtkMRMLSegmentationNode", "target segmentation")
    source = node.GetSegmentation().GetSourceRepresentationName()
    if source != binary_labelmap():
        raise InputError(
            f"The segmentation '{node.GetName()}' is stored as {source.lower()}, not as a labelmap. Convert it with "
            "'Make source: Binary labelmap' in the Segmentations module, or choose another one."
        )
    return node


def describe_segment(segment: Any, name: str, color: Color, terminology: str) -> None:
    segment.SetName(name)
    # Otherwise a later change of terminology would rename and recolour what was named on purpose.
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)
    segment.SetColor(*color)
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology)
