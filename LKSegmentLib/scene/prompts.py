"""Clicks: two markups nodes, green for "belongs to it" and red for "does not", ↔ an ordered list of points.

The order of clicks across both nodes is the number each control point carries as its label. Points of one stroke, such
as a box, carry the same description, which scene files keep as they keep labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts.points import Point, without_last
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, require_node, slicer_module

FIDUCIALS = "vtkMRMLMarkupsFiducialNode"
POSITIVE_COLOR = (0.18, 0.80, 0.34)
NEGATIVE_COLOR = (0.92, 0.22, 0.22)
_STROKE = "stroke "
"""How the description of a stroke's points begins; the number of its first point follows."""


@dataclass(frozen=True)
class _Placed:
    """A placed point: its click number, where it is kept, and the stroke it belongs to ("" for a single click)."""

    number: int | None
    node: Node
    index: int
    stroke: str
    point: Point


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


def add_stroke(positive_node: Node, negative_node: Node, points: Sequence[Point]) -> None:
    """Add points that belong together, as `LKSegmentLib.prompts.strokes` makes them, after all others."""
    for node in (positive_node, negative_node):
        require_node(node, FIDUCIALS, "list of points")
    first = number_points(positive_node, negative_node) + 1
    with _together(positive_node, negative_node):
        for number, point in enumerate(points, first):
            node = positive_node if point.positive else negative_node
            index = add_point(node, point.ras, number)
            node.SetNthControlPointDescription(index, f"{_STROKE}{first}" if len(points) > 1 else "")


def points_of(positive_node: Node | None, negative_node: Node | None) -> list[Point]:
    """All placed points in world RAS (mm), in the order of their click numbers.

    Points still under the cursor are left out. Points without a number come last, the positive ones first.
    A node that is None or no longer in the scene holds no points. A point of a stroke says `with_next` as long as
    another point of that stroke follows it: a stroke of which points were deleted still ends.
    """
    placed = _numbered(positive_node, negative_node)
    found = []
    for place, entry in enumerate(placed, 1):
        joined = bool(entry.stroke) and place < len(placed) and placed[place].stroke == entry.stroke
        found.append(replace(entry.point, with_next=joined))
    return found


def number_points(positive_node: Node | None, negative_node: Node | None) -> int:
    """Give every placed point without a click number the next one; the highest number afterwards (0: no points)."""
    highest = next_number(positive_node, negative_node) - 1
    for entry in _numbered(positive_node, negative_node):
        if entry.number is None:
            highest += 1
            entry.node.SetNthControlPointLabel(entry.index, str(highest))
    return highest


def next_number(positive_node: Node | None, negative_node: Node | None) -> int:
    """The number of the next click."""
    return max((entry.number or 0 for entry in _numbered(positive_node, negative_node)), default=0) + 1


def undo_last(positive_node: Node | None, negative_node: Node | None) -> tuple[Point, ...]:
    """Remove the last click, or the whole last stroke, and return its points in order; () when there is none."""
    points, placed = points_of(positive_node, negative_node), _numbered(positive_node, negative_node)
    kept = len(without_last(points))
    with _together(positive_node, negative_node):
        # From behind: the indices before a removed point stay what they are.
        for entry in sorted(placed[kept:], key=lambda entry: entry.index, reverse=True):
            entry.node.RemoveNthControlPoint(entry.index)
    return tuple(points[kept:])


def remove_points(positive_node: Node | None, negative_node: Node | None) -> None:
    """Remove all points of both nodes, those under the cursor too."""
    for node in (positive_node, negative_node):
        if node is not None and is_in_scene(node):
            node.RemoveAllControlPoints()


def start_placing(context: SceneContext, node: Node, several: bool = True) -> None:
    """Let the user place this markup with the mouse; `several` keeps placing after it is complete.

    Raises InputError when the node is gone.
    """
    require_node(node, "vtkMRMLMarkupsNode", "list of points")
    selection, interaction = _mouse_nodes(context)
    selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
    selection.SetReferenceActivePlaceNodeID(node.GetID())
    interaction.SetPlaceModePersistence(1 if several else 0)
    interaction.SetCurrentInteractionMode(interaction.Place)


def stop_placing(context: SceneContext) -> None:
    """Back to moving and looking around."""
    _, interaction = _mouse_nodes(context)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)


def placing_node(context: SceneContext) -> Node | None:
    """The markup that the mouse places points of at the moment; None when it places none."""
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


@contextmanager
def _together(*nodes: Node | None) -> Iterator[None]:
    """Several changes of these nodes, told once."""
    present = [node for node in nodes if node is not None and is_in_scene(node)]
    before = [node.StartModify() for node in present]
    try:
        yield
    finally:
        for node, was_modifying in zip(present, before, strict=True):
            node.EndModify(was_modifying)


def _numbered(positive_node: Node | None, negative_node: Node | None) -> list[_Placed]:
    """Every placed point, in click order."""
    defined = slicer_module().vtkMRMLMarkupsNode.PositionDefined
    found: list[_Placed] = []
    for node, positive in ((positive_node, True), (negative_node, False)):
        if node is None or not is_in_scene(node):
            continue
        for index in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointPositionStatus(index) != defined:
                continue
            label = str(node.GetNthControlPointLabel(index) or "").strip()
            description = str(node.GetNthControlPointDescription(index) or "").strip()
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(index, position)
            point = Point((position[0], position[1], position[2]), positive)
            stroke = description if description.startswith(_STROKE) else ""
            found.append(_Placed(int(label) if label.isdecimal() else None, node, index, stroke, point))
    # sorted() is stable: equal and missing numbers keep node order, positive first.
    return sorted(found, key=lambda entry: float("inf") if entry.number is None else entry.number)
