"""Where an accepted mask goes: the chosen segmentation made ready for it, and the name of a new segment."""

from __future__ import annotations

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext
from LKSegmentLib.scene.geometry import local_to_world, share_parent_transform
from LKSegmentLib.scene.segmentations import ensure_segmentation, place_beside


def ready_segmentation(context: SceneContext, chosen: Node | None, volume_node: Node | None) -> Node:
    """The chosen segmentation; a new one beside the volume where none is chosen.

    An empty one without geometry, such as a selector's "Create new" makes, gets the volume's lattice and place.
    Raises InputError when neither is there.
    """
    if volume_node is None and chosen is None:
        raise InputError("Choose a segmentation for the result: the volume it was made from is gone.")
    if chosen is None:
        assert volume_node is not None
        return ensure_segmentation(context, volume_node, f"{volume_node.GetName()} segmentation")
    if volume_node is not None and not chosen.GetSegmentation().GetNumberOfSegments():
        if chosen.GetDisplayNode() is None:
            chosen.CreateDefaultDisplayNodes()
        if chosen.GetNodeReferenceID(chosen.GetReferenceImageGeometryReferenceRole()) is None:
            share_parent_transform(chosen, volume_node)
            chosen.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return chosen


def new_segmentation(context: SceneContext, volume_node: Node) -> Node:
    """A segmentation that was not there before, beside the volume and in its frame.

    Where labels cannot follow the volume's transform (a non-linear one), it stays in world RAS without one.
    """
    node = context.add_node(
        "vtkMRMLSegmentationNode", context.scene.GenerateUniqueName(f"{volume_node.GetName()} segmentation")
    )
    node.CreateDefaultDisplayNodes()
    place_beside(context, node, volume_node)
    try:
        local_to_world(volume_node, "volume")
    except InputError:
        return node
    share_parent_transform(node, volume_node)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return node


def free_segment_name(segmentation_node: Node) -> str:
    """The first of "Structure 1", "Structure 2", ... that no segment has."""
    segmentation, number = segmentation_node.GetSegmentation(), 1
    while segmentation.GetSegmentIdBySegmentName(f"Structure {number}"):
        number += 1
    return f"Structure {number}"
