"""What the panel tests share: the open panel, and what a person does with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_engine import FakeEngine
from qt_host import OpenModule, QtHost

ROOT = Path(__file__).resolve().parents[2]
MODULE_FILE = ROOT / "LKSegment" / "LKSegment.py"
INSIDE = (10.0, 11.0, 12.0)
BESIDE = (18.0, 11.0, 12.0)
"""Places in the volume of the fixture `panel`, RAS mm: masks of points there touch and do not overlap."""


class Panel:
    """The open panel and what tests do with it."""

    def __init__(self, host: QtHost, module: OpenModule, engine: FakeEngine) -> None:
        self.host, self.module, self.engine = host, module, engine

    @property
    def widget(self) -> Any:
        return self.module.widget

    @property
    def ui(self) -> Any:
        return self.module.widget.ui

    @property
    def session(self) -> Any:
        return self.module.widget.session

    @property
    def status(self) -> str:
        return str(self.ui.statusLabel.text())

    def place(self, positive: bool, ras: tuple[float, float, float]) -> None:
        """Press the button and click into a slice view; the view itself is Slicer's business."""
        button = self.ui.positivePointButton if positive else self.ui.negativePointButton
        if not button.isChecked():
            self.host.press(button)
        state = self.session.state
        node = state.positive_points if positive else state.negative_points
        node.AddControlPointWorld(list(ras), "")
        node.InvokeEvent(node.PointPositionDefinedEvent)
        self.host.process_events()

    def begin(self, button: Any, places: Sequence[tuple[float, float, float]]) -> Any:
        """Press the button of a box, lasso or scribble and click these places; the node Slicer draws them in."""
        self.host.press(button)
        node = self.session.pointing.drawing.node
        for place in places:
            node.AddControlPointWorld(list(place))
        self.host.process_events()
        return node

    def end(self) -> None:
        """Placing ends: at a box's second corner, with a double click, the right button, or another mouse mode."""
        import slicer

        interaction = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self.host.wait_until(lambda: not self.widget.drawing_timer.isActive(), what="the points of a drawing")

    def draw(self, button: Any, places: Sequence[tuple[float, float, float]]) -> None:
        self.begin(button, places)
        self.end()
        self.settle()

    def settle(self) -> None:
        """Wait until the debounced request has been made and every job has ended."""
        self.host.wait_until(lambda: not self.widget.request_timer.isActive() and not self.session.is_busy, what="idle")
        self.host.wait(0.05)

    def click(self, positive: bool, ras: tuple[float, float, float]) -> None:
        self.place(positive, ras)
        self.settle()

    def record(self) -> None:
        """Open the section and press Record."""
        self.ui.whyCollapsibleButton.setCollapsed(False)
        self.settle()
        self.host.press(self.ui.recordButton)
        self.settle()

    def put_crosshair(self, ras: tuple[float, float, float]) -> None:
        """Where a person would move it with Shift and the mouse."""
        import slicer

        node = slicer.mrmlScene.GetSingletonNode("default", "vtkMRMLCrosshairNode")
        if node is None:  # the application makes it when it starts
            node = slicer.vtkMRMLCrosshairNode()
            node.SetCrosshairName("default")
            node = slicer.mrmlScene.AddNode(node)
        node.SetCrosshairRAS(*ras)

    def target_mask(self, segment_id: str | None = None) -> Any:
        """The written segment on the input volume's grid."""
        from LKSegmentLib.scene import segments, volumes

        state = self.session.state
        return segments.mask_on(
            state.target_segmentation, segment_id or state.segment_id, volumes.grid_of(state.input_volume)
        )
