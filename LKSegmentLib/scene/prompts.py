"""Clicks: two markups nodes, green for "belongs to it" and red for "does not", ↔ an ordered list of points.

The order of clicks across both nodes is the number each control point carries as its label.
"""

from __future__ import annotations

from collections.abc import Sequence

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts.points import Point
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, require_node, slicer_module

FIDUCIALS = "vtkMRMLMarkupsFiducialNode"
POSITIVE_COLOR = (0.18, 0.80, 0.34)
NEGATIVE_COLOR = (0.92, 0.22, 0.22)


def create_point_nodes(context: SceneContext, prefix: str = "") -> tuple[Node, Node]:
    """Add the two point nodes: (positive, negative), with their colours and no automatic labels."""
    nodes: list[Node] = []
    for name, color in (("positive", POSITIVE_COLOR), ("negative", NEGATIVE_COLOR)):
        node = context.add_node(FIDUCIALS, f"{prefix} {name}".strip())
        node.CreateDefaultDisplayNodes()
        # Placed points start without a label: `number_points` gives each its click number.
        node.SetControlPointLabelFormat("")
        display = node.GetDisplayNode()
        display.SetSelectedColor(*color)
        display.SetColor(*color)
        display.SetActiveColor(*(0.5 + 0.5 * part for part in color))
        display.SetGlyphTypeFromString("Sphere3D")
        display.SetUseGlyphScale(True)
        display.SetGlyphScale(2.2)
        display.SetTextScale(3.0)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(True)
        nodes.append(node)
    return nodes[0], nodes[1]


def add_point(node: Node, ras: Sequence[float], number: int) -> int:
    """Add a placed point at world RAS (mm) with this click number; returns its index in the node."""
    require_node(node, FIDUCIALS, "list of points")
    point = Point((float(ras[0]), float(ras[1]), float(ras[2])))
    return int(node.AddControlPointWorld(list(point.ras), str(number)))


def points_of(positive_node: Node | None, negative_node: Node | None) -> list[Point]:
    """All placed points in world RAS (mm), in the order of their click numbers.

    Points still under the cursor are left out. Points without a number come last, the positive ones first.
    A node that is None or no longer in the scene holds no points.
    """
    return [point for _, _, _, point in _numbered(positive_node, negative_node)]


def number_points(positive_node: Node | None, negative_node: Node | None) -> int:
    """Give every placed point without a click number the next one; the highest number afterwards (0: no points)."""
    highest = next_number(positive_node, negative_node) - 1
    for number, node, index, _ in _numbered(positive_node, negative_node):
        if number is None:
            highest += 1
            node.SetNthControlPointLabel(index, str(highest))
    return highest


def next_number(positive_node: Node | None, negative_node: Node | None) -> int:
    """The number of the next click."""
    numbers = [number for number, _, _, _ in _numbered(positive_node, negative_node) if number is not None]
    return max(numbers, default=0) + 1


def undo_last(positive_node: Node | None, negative_node: Node | None) -> Point | None:
    """Remove the last click and return it; None when there is none."""
    numbered = _numbered(positive_node, negative_node)
    if not numbered:
        return None
    _, node, index, point = numbered[-1]
    node.RemoveNthControlPoint(index)
    return point


def remove_points(positive_node: Node | None, negative_node: Node | None) -> None:
    """Remove all points of both nodes, those under the cursor too."""
    for node in (positive_node, negative_node):
        if node is not None and is_in_scene(node):
            node.RemoveAllControlPoints()


def start_placing(context: SceneContext, node: Node, several: bool = True) -> None:
    """Let the user place points of this node with the mouse; `several` keeps placing after the first.

    Raises InputError when the node is gone.
    """
    require_node(node, FIDUCIALS, "list of points")
    selection, interaction = _mouse_nodes(context)
    selection.SetReferenceActivePlaceNodeClassName(FIDUCIALS)
    selection.SetReferenceActivePlaceNodeID(node.GetID())
    interaction.SetPlaceModePersistence(1 if several else 0)
    interaction.SetCurrentInteractionMode(interaction.Place)


def stop_placing(context: SceneContext) -> None:
    """Back to moving and looking around."""
    _, interaction = _mouse_nodes(context)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)


def placing_node(context: SceneContext) -> Node | None:
    """The point node that the mouse places points of at the moment; None when it places none."""
    selection, interaction = _mouse_nodes(context)
    if interaction.GetCurrentInteractionMode() != interaction.Place:
        return None
    node_id = selection.GetActivePlaceNodeID()
    return context.scene.GetNodeByID(node_id) if node_id else None


def _mouse_nodes(context: SceneContext) -> tuple[Node, Node]:
    scene = context.scene
    selection = scene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")
    interaction = scene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
    if selection is None or interaction is None:
        raise InputError("The scene has no mouse mode nodes. Close the scene (File, Close scene) and try again.")
    return selection, interaction


def _numbered(positive_node: Node | None, negative_node: Node | None) -> list[tuple[int | None, Node, int, Point]]:
    """(click number, node, index in it, point) of every placed point, in click order."""
    defined = slicer_module().vtkMRMLMarkupsNode.PositionDefined
    found: list[tuple[int | None, Node, int, Point]] = []
    for node, positive in ((positive_node, True), (negative_node, False)):
        if node is None or not is_in_scene(node):
            continue
        for index in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointPositionStatus(index) != defined:
                continue
            label = str(node.GetNthControlPointLabel(index) or "").strip()
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(index, position)
            point = Point((position[0], position[1], position[2]), positive)
            found.append((int(label) if label.isdecimal() else None, node, index, point))
    # sorted() is stable: equal and missing numbers keep node order, positive first.
    return sorted(found, key=lambda entry: float("inf") if entry[0] is None else entry[0])
