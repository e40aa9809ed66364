"""What the user points at in the views: points and drawings by the mouse, in the two lists of points of the panel."""

from __future__ import annotations

from LKSegmentLib.prompts import Point
from LKSegmentLib.scene import prompts
from LKSegmentLib.scene.core import Node, SceneContext
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.strokes import TOOLS, Drawing

POINT_TOOLS = {"positive": True, "negative": False}


class Pointing:
    """The tools of the mouse: "positive" and "negative" place points, those of `strokes.TOOLS` draw one stroke each.

    Attributes:
        drawing: the stroke that is being drawn.
    """

    def __init__(self, context: SceneContext, state: PanelState) -> None:
        self._context, self._state = context, state
        self.drawing = Drawing(context)

    def points(self) -> list[Point]:
        """All placed points in the order of the clicks."""
        prompts.number_points(*self._nodes())
        return prompts.points_of(*self._nodes())

    @property
    def has_something(self) -> bool:
        """Whether there is a point, or a drawing that has begun."""
        return bool(self.points()) or self.drawing.has_begun

    @property
    def tool(self) -> str:
        """The tool the mouse holds now; "" for none of ours."""
        node = prompts.placing_node(self._context)
        if node is None:
            return ""
        if node is self.drawing.node:
            return self.drawing.tool
        return dict(zip(self._nodes(), POINT_TOOLS, strict=True)).get(node, "")

    @property
    def advice(self) -> str:
        """How to draw with the tool the mouse holds; "" for points."""
        return TOOLS[self.drawing.tool].advice if self.drawing.tool else ""

    def take(self, tool: str) -> None:
        """Give the mouse this tool; an unfinished drawing is removed."""
        self.drawing.discard()
        nodes = self._made_nodes()
        if tool in POINT_TOOLS:
            prompts.start_placing(self._context, nodes[0] if POINT_TOOLS[tool] else nodes[1])
        else:
            self.drawing.start(tool)

    def put_down(self) -> None:
        """Back to the usual mouse, if it holds one of our tools. What has been drawn is then for `finish_drawing`."""
        if self.tool:
            prompts.stop_placing(self._context)

    def leave(self) -> None:
        """Back to the usual mouse; an unfinished drawing is removed."""
        self.drawing.discard()
        self.put_down()

    def finish_drawing(self) -> None:
        """Turn a drawing that is over into points. Raises InputError when it says nothing; it is removed either way."""
        points = self.drawing.finish(self._state.input_volume)
        if points:
            prompts.add_stroke(*self._made_nodes(), points)

    def undo(self) -> None:
        """Take back the last point or stroke; while something is being drawn, that."""
        if self.drawing.has_begun:
            self.drawing.discard()
        else:
            prompts.undo_last(*self._nodes())

    def remove(self) -> None:
        """Remove all points, and what is being drawn."""
        if self.drawing.has_begun:
            self.drawing.discard()
        prompts.remove_points(*self._nodes())

    def _nodes(self) -> tuple[Node | None, Node | None]:
        return self._state.positive_points, self._state.negative_points

    def _made_nodes(self) -> tuple[Node, Node]:
        """The two lists of points; made anew, both, where one is missing."""
        nodes = self._nodes()
        if None in nodes:
            for node in nodes:
                if node is not None:
                    self._context.scene.RemoveNode(node)
            nodes = prompts.create_point_nodes(self._context, "LKSegment")
            self._state.positive_points, self._state.negative_points = nodes
        return nodes
