"""A mouse over a slice view: its events go to Slicer's own manager of markups, as the application's views send them."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

from LKSegmentLib.scene import views
from LKSegmentLib.scene.core import SceneContext

_EVENT = vtk.vtkCommand


class SliceMouse:
    """Clicks at world places (r, a, s), mm, in the red view."""

    def __init__(self, context: SceneContext, size: tuple[int, int] = (160, 120)) -> None:
        self._view = views.SliceView(context, "Red", size)
        self._manager = self._view._group.GetDisplayableManagerByClassName("vtkMRMLMarkupsDisplayableManager")

    def close(self) -> None:
        self._view.close()

    def move(self, ras: tuple[float, float, float]) -> None:
        self._send(_EVENT.MouseMoveEvent, ras)

    def click(self, ras: tuple[float, float, float]) -> None:
        self.move(ras)
        self._send(_EVENT.LeftButtonPressEvent, ras)
        self._send(_EVENT.LeftButtonReleaseEvent, ras)

    def double_click(self, ras: tuple[float, float, float]) -> None:
        """VTK tells the second press as a double click."""
        self.click(ras)
        self._send(_EVENT.LeftButtonDoubleClickEvent, ras)

    def right_click(self, ras: tuple[float, float, float]) -> None:
        self.move(ras)
        self._send(_EVENT.RightButtonPressEvent, ras)
        self._send(_EVENT.RightButtonReleaseEvent, ras)

    def _send(self, event: int, ras: tuple[float, float, float]) -> None:
        to_display = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._view.node.GetXYToRAS(), to_display)
        x, y, _z, _one = to_display.MultiplyPoint((*ras, 1.0))
        data: Any = slicer.vtkMRMLInteractionEventData()
        data.SetType(event)
        data.SetDisplayPosition([round(x), round(y)])
        data.SetRenderer(self._view.renderer)
        data.SetViewNode(self._view.node)
        if self._manager.CanProcessInteractionEvent(data, vtk.reference(0.0)):
            self._manager.ProcessInteractionEvent(data)
