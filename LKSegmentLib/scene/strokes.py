"""A box, scribble or lasso being drawn with Slicer's markups, and what it says as points of the click model.

Slicer ends a box itself, at its second corner; the curves of scribbles and lassos end where the user does, by a double
click or the right button (vtkSlicerMarkupsWidget, Slicer 5.8 to 5.12). Nobody keeps the drawing: its points are kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import Point
from LKSegmentLib.scene import prompts
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, slicer_module
from LKSegmentLib.scene.translation import _
from LKSegmentLib.scene.volumes import grid_of

BOX, LASSO = "box", "lasso"
SCRIBBLE, SCRIBBLE_OUT = "scribble", "scribble out"


class Tool(NamedTuple):
    """How something is drawn: the class of its node, whether it is drawn around or over the structure, and advice."""

    node_class: str
    positive: bool
    advice: str


TOOLS = {
    BOX: Tool("vtkMRMLMarkupsROINode", True, _("Click two opposite corners of the box; scroll in between for depth.")),
    LASSO: Tool(
        "vtkMRMLMarkupsClosedCurveNode",
        True,
        _("Click around the structure on one slice. A double click or the right button ends the lasso."),
    ),
    SCRIBBLE: Tool(
        "vtkMRMLMarkupsCurveNode",
        True,
        _("Click along the structure. A double click or the right button ends the scribble."),
    ),
    SCRIBBLE_OUT: Tool(
        "vtkMRMLMarkupsCurveNode",
        False,
        _("Click along what to leave out. A double click or the right button ends the scribble."),
    ),
}


class Drawing:
    """At most one drawing at a time, in a temporary node that is neither saved nor offered anywhere."""

    def __init__(self, context: SceneContext) -> None:
        self._context = context
        self._node: Node | None = None
        self._tool = ""

    @property
    def node(self) -> Node | None:
        """The temporary node; None when nothing is drawn, or when somebody has deleted it."""
        return self._node if is_in_scene(self._node, self._context.scene) else None

    @property
    def tool(self) -> str:
        """What is drawn, one of `TOOLS`; "" for nothing."""
        return self._tool if self.node is not None else ""

    @property
    def has_begun(self) -> bool:
        """Whether there is something of it on the screen."""
        return self.node is not None and self.node.GetNumberOfDefinedControlPoints() > 0

    @property
    def is_over(self) -> bool:
        """Whether the mouse draws it no more, or it has all the corners it can have."""
        node = self.node
        return node is not None and (prompts.placing_node(self._context) is not node or _is_complete(node))

    def start(self, tool: str) -> None:
        """Let the mouse draw this, one of `TOOLS`. What was being drawn is removed."""
        self.discard()
        node = self._context.add_node(TOOLS[tool].node_class, f"LKSegment {tool}")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        color = prompts.POSITIVE_COLOR if TOOLS[tool].positive else prompts.NEGATIVE_COLOR
        for set_color in (display.SetSelectedColor, display.SetColor, display.SetActiveColor):
            set_color(*color)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(False)
        self._node, self._tool = node, tool
        prompts.start_placing(self._context, node, several=False)

    def discard(self) -> None:
        """Remove what is being drawn; the mouse is the user's own again."""
        node = self._let_go()
        if node is not None:
            self._context.remove_node(node)

    def on_node_leaving(self, node: Node) -> None:
        """Somebody else is deleting a node: if it is the drawing, there is nothing to be drawn any more."""
        if node is self._node:
            self._let_go()

    def _let_go(self) -> Node | None:
        node, self._node = self.node, None  # first: what follows tells everybody that the mouse mode has changed
        if node is not None and prompts.placing_node(self._context) is node:
            prompts.stop_placing(self._context)
        return node

    def finish(self, volume: Node | None) -> tuple[Point, ...]:
        """Remove a drawing that is over, and return its points; none where nothing had been drawn.

        None either where the mouse was given to another markup in the middle of it.

        Raises:
            InputError: a drawing that says nothing, or a volume that is gone.
        """
        if not self.is_over:
            return ()
        node, tool = self._node, self._tool
        abandoned = not _is_complete(node) and prompts.placing_node(self._context) is not None
        try:
            return () if abandoned or not self.has_begun else self._points(node, tool, volume)
        finally:
            self.discard()

    def _points(self, node: Node, tool: str, volume: Node | None) -> tuple[Point, ...]:
        from LKSegmentLib.prompts import strokes

        if tool == BOX:
            if not _is_complete(node):
                raise InputError(_("A box needs two opposite corners, and only one was clicked."))
            bounds = [0.0] * 6
            node.GetRASBounds(bounds)
            return strokes.box(bounds[::2], bounds[1::2], grid_of(volume))
        line = _line_of(node)
        if tool == LASSO:
            return strokes.lasso(line, grid_of(volume))
        return strokes.scribble(line, TOOLS[tool].positive)


def _is_complete(node: Node) -> bool:
    """Whether a box has both corners. Curves require more points than anybody places."""
    return bool(node.GetNumberOfDefinedControlPoints() >= node.GetRequiredNumberOfControlPoints())


def _line_of(node: Node) -> list[tuple[float, float, float]]:
    """The line through the placed points of a curve, world RAS mm; the points where they are too few for a line."""
    defined: Any = slicer_module().vtkMRMLMarkupsNode.PositionDefined
    for index in reversed(range(node.GetNumberOfControlPoints())):
        if node.GetNthControlPointPositionStatus(index) != defined:  # the one still under the cursor
            node.RemoveNthControlPoint(index)
    line = node.GetCurvePointsWorld()
    if line is None or not line.GetNumberOfPoints():
        return [tuple(node.GetNthControlPointPositionWorld(index)) for index in range(node.GetNumberOfControlPoints())]
    return [line.GetPoint(index) for index in range(line.GetNumberOfPoints())]
