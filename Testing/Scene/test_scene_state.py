from __future__ import annotations

import pytest
from scene_support import add_image

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene import prompts
from LKSegmentLib.scene.segments import ensure_segment, ensure_segmentation
from LKSegmentLib.scene.state import PanelState


@pytest.fixture
def state(context):
    return PanelState(context)


def fill(context, state):
    image = add_image(context)
    state.input_volume = image
    state.target_segmentation = ensure_segmentation(context, image, "organs")
    state.segment_id = ensure_segment(state.target_segmentation, "liver")
    state.positive_points, state.negative_points = prompts.create_point_nodes(context)
    state.overlay = add_image(context, name="attention")
    state.model = "lk_click"
    state.overlay_visible = True
    state.overlay_opacity = 0.25
    return image


def test_defaults(state):
    assert state.input_volume is None
    assert state.target_segmentation is None
    assert state.segment_id == ""
    assert state.model == ""
    assert state.overlay_visible is False
    assert state.overlay_opacity == 0.5
    assert state.problems(["lk_click"]) == []


def test_everything_set_is_read_by_another_panel_of_the_scene(context, state):
    image = fill(context, state)
    other = PanelState(context)
    assert other.node is state.node
    assert other.input_volume is image
    assert other.target_segmentation.GetName() == "organs"
    assert other.segment_id == "liver"
    assert other.model == "lk_click"
    assert other.overlay.GetName() == "attention"
    assert other.overlay_visible is True
    assert other.overlay_opacity == 0.25
    assert other.problems(["lk_click"]) == []


@pytest.mark.parametrize("value", [-0.1, 1.01, "0.5", None, True, float("nan")])
def test_an_opacity_that_is_none_is_refused(state, value):
    with pytest.raises(InputError, match="from 0 to 1"):
        state.overlay_opacity = value
    assert state.overlay_opacity == 0.5


def test_values_of_the_wrong_kind_are_refused(context, state):
    image = add_image(context)
    for name, value in (
        ("input_volume", ensure_segmentation(context, image, "organs")),
        ("target_segmentation", image),
        ("positive_points", image),
        ("model", None),
        ("segment_id", 3),
        ("overlay_visible", "yes"),
    ):
        with pytest.raises(InputError):
            setattr(state, name, value)
    context.scene.RemoveNode(image)
    with pytest.raises(InputError, match="not in this scene"):
        state.input_volume = image


def test_what_is_gone_is_named_in_a_sentence_not_a_traceback(context, state):
    image = fill(context, state)
    context.scene.RemoveNode(image)
    context.scene.RemoveNode(state.positive_points)
    state.target_segmentation.GetSegmentation().RemoveSegment("liver")
    assert state.input_volume is None
    assert state.positive_points is None
    sentences = state.problems(["another_model"])
    assert sentences == [
        "The input volume 'CT' is no longer in the scene. Choose another one.",
        "The list of positive points 'positive' is no longer in the scene. Choose another one.",
        "The segmentation 'organs' has no segment 'liver' any more. Choose or add another one.",
        "The model 'lk_click' is not installed on this computer. Choose another one.",
    ]
    state.input_volume = None
    state.positive_points = None
    state.segment_id = ""
    state.model = ""
    assert state.problems([]) == []


def test_a_renamed_node_is_still_it(context, state):
    image = fill(context, state)
    image.SetName("renamed")
    assert state.input_volume is image
    assert state.problems() == []


def test_a_scene_edited_by_hand_does_not_break_the_panel(state):
    state.node.SetParameter("OverlayOpacity", "a lot")
    state.node.SetParameter("NodeNames", "{broken")
    assert state.overlay_opacity == 0.5
    assert state.problems() == []
    state.node.SetParameter("OverlayOpacity", "7")
    assert state.overlay_opacity == 1.0


def test_changes_are_told_once_each_and_together_once(context, state):
    image = add_image(context)
    told = []
    stop = state.on_change(lambda: told.append(state.model))
    state.model = "a"
    state.model = "a"
    assert told == ["a"]
    with state.together():
        state.model = "b"
        state.input_volume = image
    assert told == ["a", "b"]
    stop()
    state.model = "c"
    assert told == ["a", "b"]
    stop()


def test_closing_the_scene_resets_the_state_and_keeps_it_told(context, state):
    fill(context, state)
    told = []
    state.on_change(lambda: told.append(state.model))
    context.scene.Clear(0)
    assert state.input_volume is None
    assert state.model == ""
    assert state.problems(["x"]) == []
    told.clear()
    state.model = "again"
    assert told == ["again"]
    assert state.node.GetModuleName() == "LKSegment"
    context.scene.RemoveNode(state.node)
    state.model = "made anew"
    told.clear()
    state.model = "and told"
    assert told == ["and told"]
