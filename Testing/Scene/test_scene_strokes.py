"""Boxes, lassos and scribbles drawn with Slicer's markups: what the mouse does, and what they become."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from slice_mouse import SliceMouse

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import strokes as points_of_strokes
from LKSegmentLib.scene import bundle, layout, prompts, views
from LKSegmentLib.scene.pointing import Pointing
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.strokes import BOX, LASSO, SCRIBBLE, SCRIBBLE_OUT, Drawing
from LKSegmentLib.scene.volumes import add_volume_node, grid_of
from LKSegmentLib.volumes import Volume

MATRIX = np.array([[2.0, 0, 0, -60], [0, 2.0, 0, -50], [0, 0, 2.0, -40], [0, 0, 0, 1.0]])
SQUARE = [(-20.0, -16.0, 0.0), (20.0, -16.0, 0.0), (20.0, 16.0, 0.0), (-20.0, 16.0, 0.0)]
PIXEL = 1.0
"""A place clicked in the view is as exact as its pixels, mm."""


@pytest.fixture
def image(context):
    return add_volume_node(context, Volume(np.zeros((40, 50, 60), np.int16), MATRIX), "CT")


@pytest.fixture
def drawing(context):
    return Drawing(context)


@pytest.fixture
def pointing(context, image):
    state = PanelState(context)
    state.input_volume = image
    return Pointing(context, state)


@pytest.fixture
def mouse(context, image):
    problem = views.rendering_problem()
    if problem is not None:
        pytest.skip(problem)
    layout.arrange(context, image, (0.0, 0.0, 0.0))
    one = SliceMouse(context)
    yield one
    one.close()


def drawn(drawing, tool, places):
    """Without a view: the places that are clicked, and the end of placing."""
    drawing.start(tool)
    for place in places:
        drawing.node.AddControlPointWorld(place)
    prompts.stop_placing(drawing._context)
    return drawing


def markups_in(context, *classes):
    return sum(context.scene.GetNumberOfNodesByClass(name) for name in classes)


def is_gone(context, drawing):
    left = markups_in(context, "vtkMRMLMarkupsROINode", "vtkMRMLMarkupsCurveNode", "vtkMRMLMarkupsDisplayNode")
    return drawing.node is None and drawing.tool == "" and left == 0 and prompts.placing_node(context) is None


# With the mouse, by Slicer's own widgets ------------------------------------------------------------------------


def test_a_box_is_two_clicks(context, image, drawing, mouse):
    drawing.start(BOX)
    mouse.click(SQUARE[0])
    assert drawing.has_begun and not drawing.is_over
    mouse.move(SQUARE[2])
    assert not drawing.is_over, "the second corner is still under the cursor"
    mouse.click(SQUARE[2])
    assert drawing.is_over and prompts.placing_node(context) is None
    points = drawing.finish(image)
    # Slicer gives a box drawn in one slice the depth of its shorter side.
    expected = points_of_strokes.box((-20.0, -16.0, -16.0), (20.0, 16.0, 16.0), grid_of(image))
    assert len(points) == len(expected) == 7
    for point, wanted in zip(points, expected, strict=True):
        assert (point.positive, point.with_next) == (wanted.positive, wanted.with_next)
        assert point.ras == pytest.approx(wanted.ras, abs=1.5 * PIXEL)
    assert is_gone(context, drawing)


@pytest.mark.parametrize("end", ["right button", "double click"])
def test_a_lasso_ends_with_a_double_click_or_the_right_button(context, image, drawing, mouse, end):
    drawing.start(LASSO)
    for place in SQUARE[:3]:
        mouse.click(place)
    assert not drawing.is_over
    if end == "double click":
        mouse.double_click(SQUARE[3])
    else:
        mouse.click(SQUARE[3])
        mouse.right_click((50.0, 40.0, 0.0))  # where the mouse is then belongs to no lasso
    assert drawing.is_over
    points = drawing.finish(image)
    inside = np.array([point.ras for point in points if point.positive])
    outside = np.array([point.ras for point in points if not point.positive])
    assert (len(inside), len(outside)) == (5, 6)
    assert (np.abs(inside) < (22, 18, PIXEL)).all()
    assert ((np.abs(outside[:, 0]) > 18) | (np.abs(outside[:, 1]) > 14)).all()
    assert (np.abs(outside) < (35, 31, PIXEL)).all()
    assert [point.with_next for point in points] == [True] * 10 + [False]
    assert is_gone(context, drawing)


@pytest.mark.parametrize(("tool", "positive"), [(SCRIBBLE, True), (SCRIBBLE_OUT, False)])
def test_a_scribble_goes_from_the_first_click_to_the_last(context, image, drawing, mouse, tool, positive):
    drawing.start(tool)
    mouse.click(SQUARE[0])
    mouse.double_click(SQUARE[2])
    points = drawing.finish(image)
    assert len(points) == 7 and {point.positive for point in points} == {positive}
    assert points[0].ras == pytest.approx(SQUARE[0], abs=PIXEL)
    assert points[-1].ras == pytest.approx(SQUARE[2], abs=PIXEL)
    assert points[3].ras == pytest.approx((0.0, 0.0, 0.0), abs=PIXEL)


def test_the_view_survives_a_drawing_that_is_removed(context, image, drawing, mouse):
    drawing.start(LASSO)
    mouse.click(SQUARE[0])
    drawing.discard()
    mouse.click(SQUARE[1])
    assert is_gone(context, drawing)
    drawing.start(SCRIBBLE)
    mouse.double_click(SQUARE[0])
    assert len(drawing.finish(image)) == 1


# What a drawing says, and when it says nothing -------------------------------------------------------------------


def test_a_box_through_several_slices_has_its_own_depth(image, drawing):
    points = drawn(drawing, BOX, [(-10.0, -8.0, -4.0), (10.0, 8.0, 20.0)]).finish(image)
    assert points == points_of_strokes.box((-10.0, -8.0, -4.0), (10.0, 8.0, 20.0), grid_of(image))


def test_the_point_under_the_cursor_is_not_in_the_line(image, drawing):
    drawn(drawing, SCRIBBLE, [(0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (40.0, 40.0, 0.0)])
    drawing.node.SetNthControlPointPosition(2, 40.0, 40.0, 0.0, slicer.vtkMRMLMarkupsNode.PositionPreview)
    assert drawing.finish(image)[-1].ras == pytest.approx((10.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("tool", "places", "sentence"),
    [
        (BOX, SQUARE[:1], "needs two opposite corners"),
        (BOX, [SQUARE[0], SQUARE[0]], "corners of a box differ"),
        (BOX, [(500.0, 500.0, 0.0), (520.0, 520.0, 0.0)], "in the volume"),
        (LASSO, SQUARE[:1], "at least three points; this one has 1"),
        (LASSO, SQUARE[:2], "on one line"),
        (LASSO, [(r + 500.0, a, s) for r, a, s in SQUARE], "nothing of the volume"),
    ],
)
def test_a_drawing_that_says_nothing_is_told_and_removed(context, image, drawing, tool, places, sentence):
    drawn(drawing, tool, places)
    with pytest.raises(InputError, match=sentence):
        drawing.finish(image)
    assert is_gone(context, drawing)


def test_without_a_volume_there_is_no_box(context, drawing):
    drawn(drawing, BOX, [SQUARE[0], SQUARE[2]])
    with pytest.raises(InputError, match="No input volume"):
        drawing.finish(None)
    assert is_gone(context, drawing)


def test_a_tool_put_down_without_a_click_says_nothing(context, image, drawing):
    assert drawn(drawing, LASSO, []).finish(image) == ()
    assert is_gone(context, drawing)


def test_a_drawing_that_is_not_over_stays(image, drawing):
    drawing.start(LASSO)
    drawing.node.AddControlPointWorld(SQUARE[0])
    assert drawing.finish(image) == ()
    assert drawing.node is not None and drawing.has_begun


def test_another_markup_placed_in_the_middle_ends_it_without_points(context, image, drawing):
    drawing.start(SCRIBBLE)
    for place in SQUARE:
        drawing.node.AddControlPointWorld(place)
    theirs = context.add_node("vtkMRMLMarkupsLineNode", "theirs")
    prompts.start_placing(context, theirs)
    assert drawing.is_over
    assert drawing.finish(image) == ()
    assert drawing.node is None
    assert prompts.placing_node(context) is theirs, "the mouse is theirs now"


def test_a_complete_box_counts_where_slicer_goes_on_to_the_next(context, image, drawing):
    """With "place multiple control points" switched on in Slicer's toolbar, placing does not end by itself."""
    drawing.start(BOX)
    for place in (SQUARE[0], SQUARE[2]):
        drawing.node.AddControlPointWorld(place)
    assert drawing.is_over and prompts.placing_node(context) is drawing.node
    assert len(drawing.finish(image)) == 7
    assert is_gone(context, drawing)


def test_a_drawing_deleted_by_somebody_else_frees_the_mouse(context, drawing):
    drawing.start(LASSO)
    node = drawing.node
    drawing.on_node_leaving(node)
    context.scene.RemoveNode(node)
    assert drawing.tool == "" and prompts.placing_node(context) is None


# In the two lists of points -------------------------------------------------------------------------------------


def test_a_stroke_comes_after_the_clicks_and_is_taken_back_whole(pointing, context):
    pointing.take("positive")
    pointing._state.positive_points.AddControlPointWorld([1.0, 2.0, 3.0])  # as the mouse does: without a number
    pointing.take(BOX)
    drawn(pointing.drawing, BOX, [SQUARE[0], SQUARE[2]])
    pointing.finish_drawing()
    points = pointing.points()
    assert points[0].ras == (1.0, 2.0, 3.0) and not points[0].with_next
    assert [point.with_next for point in points[1:]] == [True] * 6 + [False]
    labels = [pointing._state.negative_points.GetNthControlPointLabel(index) for index in range(6)]
    assert labels == ["3", "4", "5", "6", "7", "8"]
    pointing.undo()
    assert pointing.points() == points[:1]
    pointing.undo()
    assert not pointing.has_something


def test_undo_takes_back_what_is_being_drawn_first(pointing):
    pointing.take("positive")
    pointing._state.positive_points.AddControlPointWorld([1.0, 2.0, 3.0])
    pointing.take(LASSO)
    pointing.drawing.node.AddControlPointWorld(SQUARE[0])
    pointing.undo()
    assert pointing.drawing.node is None and len(pointing.points()) == 1
    pointing.undo()
    assert pointing.points() == []


def test_another_tool_removes_what_is_being_drawn(pointing, context):
    pointing.take(LASSO)
    pointing.drawing.node.AddControlPointWorld(SQUARE[0])
    pointing.take(SCRIBBLE)
    assert markups_in(context, "vtkMRMLMarkupsClosedCurveNode") == 0
    assert (pointing.tool, pointing.drawing.has_begun) == (SCRIBBLE, False)
    pointing.take("negative")
    assert markups_in(context, "vtkMRMLMarkupsCurveNode") == 0
    assert (pointing.tool, pointing.advice) == ("negative", "")


def test_strokes_come_back_from_a_file_and_a_drawing_does_not(pointing, context, tmp_path):
    drawn(pointing.drawing, LASSO, SQUARE)
    pointing.finish_drawing()
    prompts.add_point(pointing._state.negative_points, (30.0, 0.0, 0.0), len(pointing.points()) + 1)
    drawn(pointing.drawing, SCRIBBLE, SQUARE[:2])
    pointing.finish_drawing()
    pointing.take(SCRIBBLE_OUT)
    pointing.drawing.node.AddControlPointWorld(SQUARE[0])
    before = pointing.points()
    back = bundle.read_mrb(bundle.write_mrb(context, tmp_path / "strokes.mrb"))
    state = PanelState(back)
    after = prompts.points_of(state.positive_points, state.negative_points)
    assert [(point.positive, point.with_next) for point in after] == [(p.positive, p.with_next) for p in before]
    assert sum(not point.with_next for point in after) == 3, "a lasso, a click and a scribble"
    np.testing.assert_allclose([point.ras for point in after], [point.ras for point in before], atol=1e-3)
    assert markups_in(back, "vtkMRMLMarkupsCurveNode") == 0
    assert len(prompts.undo_last(state.positive_points, state.negative_points)) == 7
