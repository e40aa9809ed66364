"""Boxes, lassos and scribbles, from their buttons to the request: one stroke, one request, one undo."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slicer
from panel_support import INSIDE, Panel

from LKSegmentLib.scene import layout, views

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Scene"))

from slice_mouse import SliceMouse  # noqa: E402

SQUARE = [(6.0, 7.0, 12.0), (18.0, 7.0, 12.0), (18.0, 19.0, 12.0), (6.0, 19.0, 12.0)]
"""In the volume of the fixture `panel`, RAS mm."""
CLASSES = ("vtkMRMLMarkupsROINode", "vtkMRMLMarkupsCurveNode", "vtkMRMLMarkupsROIDisplayNode")


def drawings() -> int:
    """Nodes of drawings in the scene. A closed curve is a curve."""
    return sum(slicer.mrmlScene.GetNumberOfNodesByClass(name) for name in CLASSES)


def only_points_are_left(panel: Panel) -> bool:
    return drawings() == 0 and slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsDisplayNode") == 2


def mouse_mode() -> Any:
    return slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")


def sent(panel: Panel) -> list[tuple[int, int, int]]:
    """Of every request: how many points, how many of them positive, how many strokes and clicks."""
    return [
        (len(points), sum(point.positive for point in points), sum(not point.with_next for point in points))
        for points, _ in panel.engine.clicks
    ]


@pytest.mark.parametrize(
    ("name", "places", "expected"),
    [
        ("boxButton", [SQUARE[0], SQUARE[2]], (7, 1, 1)),
        ("lassoButton", SQUARE, (11, 5, 1)),
        ("scribbleButton", SQUARE[:2], (7, 7, 1)),
        ("scribbleOutButton", SQUARE[:2], (7, 0, 1)),
    ],
)
def test_a_drawing_is_one_request_and_one_undo(
    panel: Panel, name: str, places: list[tuple[float, float, float]], expected: tuple[int, int, int]
) -> None:
    button = getattr(panel.ui, name)
    node = panel.begin(button, places[:1])
    assert button.isChecked() and not panel.ui.positivePointButton.isChecked()
    assert panel.status.startswith("Click ")
    for place in places[1:]:
        node.AddControlPointWorld(list(place))
    panel.end()
    panel.settle()
    assert sent(panel) == [expected]
    assert not button.isChecked() and panel.session.pointing.tool == ""
    assert only_points_are_left(panel)
    panel.host.press(panel.ui.undoPointButton)
    panel.settle()
    assert panel.session.points() == [] and not panel.session.has_preview
    assert len(panel.engine.clicks) == 1


def test_with_slicers_mouse(panel: Panel) -> None:
    """Real mouse events, through Slicer's own widgets, while the panel listens to what they do."""
    problem = views.rendering_problem()
    if problem is not None:
        pytest.skip(problem)
    layout.arrange(panel.host.context, panel.session.state.input_volume, SQUARE[0])
    mouse = SliceMouse(panel.host.context, size=(80, 60))
    panel.host.press(panel.ui.boxButton)
    mouse.click(SQUARE[0])
    mouse.click(SQUARE[2])
    panel.host.process_events()
    panel.settle()
    panel.host.press(panel.ui.lassoButton)
    for place in SQUARE:
        mouse.click(place)
    mouse.right_click(SQUARE[0])
    panel.host.process_events()
    panel.settle()
    panel.host.press(panel.ui.scribbleOutButton)
    mouse.click(SQUARE[0])
    mouse.double_click(SQUARE[1])
    panel.host.process_events()
    panel.settle()
    mouse.close()
    assert sent(panel) == [(7, 1, 1), (18, 6, 2), (25, 6, 3)]
    assert only_points_are_left(panel)


def test_points_and_strokes_are_taken_back_in_turn(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.draw(panel.ui.boxButton, [SQUARE[0], SQUARE[2]])
    panel.draw(panel.ui.scribbleOutButton, SQUARE[:2])
    panel.host.press(panel.ui.undoPointButton)
    panel.settle()
    panel.host.press(panel.ui.undoPointButton)
    panel.settle()
    assert sent(panel) == [(1, 1, 1), (8, 2, 2), (15, 2, 3), (8, 2, 2), (1, 1, 1)]
    points = panel.session.points()
    assert [point.ras for point in points] == [INSIDE]


def test_nothing_is_asked_for_while_something_is_drawn(panel: Panel) -> None:
    panel.place(True, INSIDE)  # its request is still to come
    panel.begin(panel.ui.lassoButton, SQUARE[:2])
    panel.host.wait(0.4)
    assert panel.engine.clicks == []
    panel.session.pointing.drawing.node.AddControlPointWorld(list(SQUARE[2]))
    panel.end()
    panel.settle()
    assert sent(panel) == [(12, 6, 2)]


def test_undo_takes_back_a_drawing_that_has_begun(panel: Panel) -> None:
    panel.begin(panel.ui.boxButton, [])
    assert not panel.ui.undoPointButton.isEnabled()
    panel.session.pointing.drawing.node.AddControlPointWorld(list(SQUARE[0]))
    assert panel.ui.undoPointButton.isEnabled() and panel.ui.cancelButton.isEnabled()
    panel.host.press(panel.ui.undoPointButton)
    panel.settle()
    assert drawings() == 0 and panel.session.pointing.tool == ""
    assert panel.engine.clicks == [] and panel.session.points() == []
    assert not panel.ui.undoPointButton.isEnabled()


def test_the_same_button_again_ends_a_lasso(panel: Panel) -> None:
    panel.begin(panel.ui.lassoButton, SQUARE)
    panel.host.press(panel.ui.lassoButton)
    panel.settle()
    assert sent(panel) == [(11, 5, 1)] and not panel.ui.lassoButton.isChecked()


def test_a_drawing_that_says_nothing_is_told(panel: Panel) -> None:
    panel.draw(panel.ui.boxButton, SQUARE[:1])
    assert panel.status == "A box needs two opposite corners, and only one was clicked."
    assert only_points_are_left(panel)
    panel.draw(panel.ui.lassoButton, SQUARE[:2])
    assert panel.status.startswith("The points of the lasso lie on one line")
    assert panel.engine.clicks == [] and panel.session.points() == []
    assert only_points_are_left(panel)


def test_a_tool_put_down_unused_is_no_mistake(panel: Panel) -> None:
    before = panel.status
    panel.host.press(panel.ui.scribbleButton)
    assert panel.status.startswith("Click along the structure.")
    panel.host.press(panel.ui.scribbleButton)
    panel.settle()
    assert panel.status == before and only_points_are_left(panel)


@pytest.mark.parametrize("name", ["positivePointButton", "negativePointButton", "boxButton", "scribbleOutButton"])
def test_another_tool_removes_the_unfinished_drawing(panel: Panel, name: str) -> None:
    panel.begin(panel.ui.lassoButton, SQUARE)
    panel.host.press(getattr(panel.ui, name))
    panel.settle()
    assert panel.session.points() == []
    assert getattr(panel.ui, name).isChecked() and not panel.ui.lassoButton.isChecked()
    assert not panel.session.pointing.drawing.has_begun
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsClosedCurveNode") == 0


def test_placing_another_markup_removes_the_unfinished_drawing(panel: Panel) -> None:
    """From Slicer's toolbar, say: the mouse stays in its mode, and is no longer ours."""
    panel.begin(panel.ui.lassoButton, SQUARE)
    theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode")
    selection = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")
    selection.SetReferenceActivePlaceNodeID(theirs.GetID())
    panel.settle()
    assert drawings() == 0 and panel.session.points() == []
    assert not panel.ui.lassoButton.isChecked()
    assert mouse_mode().GetCurrentInteractionMode() == mouse_mode().Place


def test_leaving_the_panel_removes_the_unfinished_drawing(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.begin(panel.ui.scribbleButton, SQUARE)
    panel.module.exit()
    panel.settle()
    assert only_points_are_left(panel) and len(panel.session.points()) == 1
    assert mouse_mode().GetCurrentInteractionMode() == mouse_mode().ViewTransform


@pytest.mark.parametrize("name", ["acceptButton", "cancelButton"])
def test_accept_and_cancel_remove_it_too(panel: Panel, name: str) -> None:
    panel.click(True, INSIDE)
    panel.begin(panel.ui.scribbleButton, SQUARE)
    panel.host.press(getattr(panel.ui, name))
    panel.settle()
    assert only_points_are_left(panel) and panel.session.points() == []
    assert len(panel.engine.clicks) == 1


def test_the_scene_closes_while_something_is_drawn(panel: Panel, add_volume: Callable[..., Any]) -> None:
    panel.begin(panel.ui.boxButton, SQUARE[:1])
    slicer.mrmlScene.Clear(0)
    panel.settle()
    assert panel.session.pointing.tool == "" and drawings() == 0
    assert mouse_mode().GetCurrentInteractionMode() == mouse_mode().ViewTransform
    add_volume("another")
    panel.draw(panel.ui.boxButton, [SQUARE[0], SQUARE[2]])
    assert sent(panel) == [(7, 1, 1)]


def test_the_drawing_is_deleted_in_the_data_module(panel: Panel) -> None:
    node = panel.begin(panel.ui.lassoButton, SQUARE)
    slicer.mrmlScene.RemoveNode(node)
    panel.settle()
    assert panel.session.pointing.tool == "" and panel.session.points() == []
    assert not panel.ui.lassoButton.isChecked()
    assert mouse_mode().GetCurrentInteractionMode() == mouse_mode().ViewTransform


def test_the_volume_goes_while_something_is_drawn_on_it(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.begin(panel.ui.boxButton, SQUARE[:1])
    slicer.mrmlScene.RemoveNode(panel.session.state.input_volume)
    panel.settle()
    assert drawings() == 0 and panel.session.points() == []


def test_a_stroke_less_its_last_point_is_still_one_stroke(panel: Panel) -> None:
    panel.draw(panel.ui.boxButton, [SQUARE[0], SQUARE[2]])
    node = panel.session.state.negative_points
    node.RemoveNthControlPoint(node.GetNumberOfControlPoints() - 1)
    panel.settle()
    assert sent(panel) == [(7, 1, 1), (6, 1, 1)]


def test_reloading_the_module_leaves_no_drawing_behind(panel: Panel) -> None:
    node = panel.begin(panel.ui.boxButton, SQUARE[:1])
    node.AddControlPointWorld(list(SQUARE[2]))
    widget = panel.widget
    assert widget.drawing_timer.isActive()
    panel.module.reload()
    assert drawings() == 0 and not widget.drawing_timer.isActive()
    assert mouse_mode().GetCurrentInteractionMode() == mouse_mode().ViewTransform
