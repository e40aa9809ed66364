from __future__ import annotations

import numpy as np
import pytest
import slicer
from scene_support import MOVED, add_image, add_transform

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import Point
from LKSegmentLib.scene import prompts


@pytest.fixture
def nodes(context):
    return prompts.create_point_nodes(context, "LKSegment")


def test_the_order_across_both_nodes_is_the_order_of_clicking(nodes):
    positive, negative = nodes
    for number, (node, place) in enumerate(
        [(positive, (1, 0, 0)), (negative, (2, 0, 0)), (negative, (3, 0, 0)), (positive, (4, 0, 0))], start=1
    ):
        prompts.add_point(node, place, number)
    found = prompts.points_of(positive, negative)
    assert [point.ras[0] for point in found] == [1, 2, 3, 4]
    assert [point.positive for point in found] == [True, False, False, True]


def test_points_placed_with_the_mouse_are_numbered_in_turn(nodes):
    positive, negative = nodes
    positive.AddControlPointWorld([1, 0, 0])
    assert prompts.number_points(positive, negative) == 1
    negative.AddControlPointWorld([2, 0, 0])
    assert prompts.number_points(positive, negative) == 2
    positive.AddControlPointWorld([3, 0, 0])
    assert prompts.number_points(positive, negative) == 3
    assert [positive.GetNthControlPointLabel(0), positive.GetNthControlPointLabel(1)] == ["1", "3"]
    assert negative.GetNthControlPointLabel(0) == "2"
    assert prompts.number_points(positive, negative) == 3


def test_undo_takes_back_the_last_click_of_either_node(nodes):
    positive, negative = nodes
    prompts.add_point(positive, (1, 0, 0), 1)
    prompts.add_point(negative, (2, 0, 0), 2)
    prompts.add_point(positive, (3, 0, 0), 3)
    assert prompts.undo_last(positive, negative) == (Point((3, 0, 0), True),)
    assert prompts.undo_last(positive, negative) == (Point((2, 0, 0), False),)
    assert prompts.next_number(positive, negative) == 2
    assert prompts.undo_last(positive, negative) == (Point((1, 0, 0), True),)
    assert prompts.undo_last(positive, negative) == ()


def test_a_point_under_the_cursor_is_not_a_click(nodes):
    positive, negative = nodes
    prompts.add_point(positive, (1, 0, 0), 1)
    index = positive.AddControlPointWorld([9, 9, 9])
    positive.SetNthControlPointPosition(index, 9.0, 9.0, 9.0, slicer.vtkMRMLMarkupsNode.PositionPreview)
    missing = positive.AddControlPointWorld([8, 8, 8])
    positive.UnsetNthControlPointPosition(missing)
    assert prompts.points_of(positive, negative) == [Point((1, 0, 0), True)]
    assert prompts.number_points(positive, negative) == 1


def test_points_are_world_points_under_transforms(context, nodes):
    positive, negative = nodes
    positive.SetAndObserveTransformNodeID(add_transform(context, MOVED).GetID())
    positive.AddControlPoint([10.0, 20.0, 30.0])
    expected = MOVED @ np.array([10.0, 20.0, 30.0, 1.0])
    assert prompts.points_of(positive, negative)[0].ras == pytest.approx(tuple(expected[:3]))


def test_renamed_labels_deleted_nodes_and_missing_nodes_are_no_trouble(context, nodes):
    positive, negative = nodes
    prompts.add_point(positive, (1, 0, 0), 2)
    prompts.add_point(negative, (2, 0, 0), 1)
    positive.SetNthControlPointLabel(0, "tumour")
    assert [point.ras[0] for point in prompts.points_of(positive, negative)] == [2, 1]
    context.scene.RemoveNode(negative)
    assert [point.ras[0] for point in prompts.points_of(positive, negative)] == [1]
    assert prompts.points_of(None, None) == []
    prompts.remove_points(positive, negative)
    assert prompts.points_of(positive, None) == []
    with pytest.raises(InputError, match="no longer in the scene"):
        prompts.add_point(negative, (0, 0, 0), 1)


def test_placing_with_the_mouse_is_switched_on_and_off(context, nodes):
    positive, negative = nodes
    assert prompts.placing_node(context) is None
    prompts.start_placing(context, negative)
    assert prompts.placing_node(context) is negative
    interaction = context.scene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
    assert interaction.GetPlaceModePersistence() == 1
    prompts.start_placing(context, positive, several=False)
    assert prompts.placing_node(context) is positive
    assert interaction.GetPlaceModePersistence() == 0
    prompts.stop_placing(context)
    assert prompts.placing_node(context) is None
    context.scene.RemoveNode(positive)
    with pytest.raises(InputError, match="no longer in the scene"):
        prompts.start_placing(context, positive)
    with pytest.raises(InputError, match="does not fit"):
        prompts.start_placing(context, add_image(context))


def test_green_means_yes_and_red_means_no(nodes):
    positive, negative = nodes
    assert positive.GetDisplayNode().GetSelectedColor() == pytest.approx(prompts.POSITIVE_COLOR)
    assert negative.GetDisplayNode().GetSelectedColor() == pytest.approx(prompts.NEGATIVE_COLOR)
    assert positive.GetDisplayNode().GetPointLabelsVisibility()


STROKE = (Point((1, 0, 0), True, True), Point((2, 0, 0), False, True), Point((3, 0, 0), True, False))


def delete(nodes, place):
    """As somebody does in the list of control points of the Markups module."""
    for node in nodes:
        for index in reversed(range(node.GetNumberOfControlPoints())):
            if node.GetNthControlPointPositionWorld(index)[0] == place:
                node.RemoveNthControlPoint(index)


def test_a_stroke_is_kept_as_one(nodes):
    prompts.add_stroke(*nodes, STROKE)
    assert prompts.points_of(*nodes) == list(STROKE)
    prompts.add_stroke(*nodes, STROKE)
    assert prompts.points_of(*nodes) == [*STROKE, *STROKE], "two strokes in a row are two"
    assert prompts.undo_last(*nodes) == STROKE
    assert prompts.points_of(*nodes) == list(STROKE)
    assert prompts.undo_last(*nodes) == STROKE
    assert prompts.undo_last(*nodes) == ()


def test_a_stroke_is_one_change_of_each_list(nodes):
    told = []
    for node in nodes:
        for event in (node.PointPositionDefinedEvent, node.PointRemovedEvent):
            node.AddObserver(event, lambda *_args: told.append(len(prompts.points_of(*nodes))))
    prompts.add_stroke(*nodes, STROKE)
    prompts.undo_last(*nodes)
    assert told == [3, 3, 0, 0]


@pytest.mark.parametrize("deleted", [1, 2, 3])
def test_a_stroke_of_which_a_point_was_deleted_still_ends(nodes, deleted):
    prompts.add_stroke(*nodes, STROKE)
    prompts.add_point(nodes[0], (9, 0, 0), 4)
    delete(nodes, deleted)
    left = prompts.points_of(*nodes)
    assert [point.with_next for point in left] == [True, False, False]
    prompts.undo_last(*nodes)
    assert [point.with_next for point in prompts.points_of(*nodes)] == [True, False]
    assert prompts.undo_last(*nodes) == tuple(left[:2])


def test_numbers_that_are_free_again_join_no_strokes(nodes):
    prompts.add_stroke(*nodes, STROKE)
    delete(nodes, 3)
    delete(nodes, 2)
    prompts.add_stroke(*nodes, STROKE)
    assert [point.with_next for point in prompts.points_of(*nodes)] == [False, True, True, False]


def test_a_description_of_the_users_own_joins_nothing(nodes):
    for place in (1, 2):
        index = prompts.add_point(nodes[0], (place, 0, 0), place)
        nodes[0].SetNthControlPointDescription(index, "calcified")
    assert not any(point.with_next for point in prompts.points_of(*nodes))
