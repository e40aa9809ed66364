"""The scene changing under the panel: closed, reloaded, nodes deleted and renamed. The engine is in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import slicer
from panel_support import BESIDE, INSIDE, Panel


def test_scene_closed_while_a_job_runs(panel: Panel, add_volume: Callable[..., Any]) -> None:
    panel.click(True, INSIDE)
    panel.engine.hold = True
    panel.place(True, BESIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    slicer.mrmlScene.Clear(0)
    panel.host.process_events()
    assert len(panel.engine.cancelled) == 1
    assert panel.session.state.input_volume is None
    assert panel.status == "Choose an input volume first."
    assert not panel.session.has_preview
    panel.engine.hold = False
    add_volume("another")
    panel.click(True, INSIDE)
    assert panel.session.has_preview


def test_input_volume_deleted_while_a_job_runs(panel: Panel, add_volume: Callable[..., Any]) -> None:
    add_volume("other")
    panel.click(True, INSIDE)
    panel.engine.hold = True
    panel.place(True, BESIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    slicer.mrmlScene.RemoveNode(panel.session.state.input_volume)
    panel.engine.hold = False
    panel.settle()
    assert panel.status == "The volume 'CT abdomen' was deleted, so its job and its points were removed."
    assert len(panel.engine.clicks) == 2, "the volume that is chosen now is not segmented by itself"
    assert panel.session.has_preview, "what was shown can still be accepted"
    panel.host.press(panel.ui.acceptButton)
    node = panel.session.state.target_segmentation
    assert node.GetSegmentation().GetNumberOfSegments() == 1


def test_volume_renamed_while_a_job_runs(panel: Panel) -> None:
    panel.engine.hold = True
    panel.place(True, INSIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    panel.session.state.input_volume.SetName("renamed")
    assert panel.host.entries(panel.ui.inputVolumeSelector) == ["renamed"]
    panel.engine.hold = False
    panel.settle()
    assert panel.session.has_preview


def test_target_deleted_before_accepting(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    panel.host.choose(panel.ui.segmentComboBox, "Structure 1")
    panel.click(True, BESIDE)
    slicer.mrmlScene.RemoveNode(panel.session.state.target_segmentation)
    panel.host.process_events()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment"]
    panel.host.press(panel.ui.acceptButton)
    assert panel.session.state.target_segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_segment_deleted_and_renamed(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    panel.host.choose(panel.ui.segmentComboBox, "Structure 1")
    segmentation = panel.session.state.target_segmentation.GetSegmentation()
    segmentation.GetNthSegment(0).SetName("liver")
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "liver"]
    segmentation.RemoveSegment(panel.session.state.segment_id)
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment"]
    assert panel.session.state.segment_id == ""


def test_point_list_deleted(panel: Panel) -> None:
    panel.click(True, INSIDE)
    slicer.mrmlScene.RemoveNode(panel.session.state.positive_points)
    panel.settle()
    panel.click(True, BESIDE)
    assert [point.ras for point in panel.session.points()] == [BESIDE]


def test_a_scene_that_brings_points_starts_nothing_by_itself(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.module.reload()
    panel.host.wait(0.4)
    assert panel.session.job is None
    assert not panel.session.has_preview
    assert panel.status == "This scene has points: press 'Include' to segment what they point at."
    panel.host.press(panel.ui.positivePointButton)
    panel.settle()
    assert panel.session.has_preview


def test_moving_a_point_of_a_loaded_scene_segments_it(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.module.reload()
    node = panel.session.state.positive_points
    node.SetNthControlPointPositionWorld(0, *BESIDE)
    node.InvokeEvent(node.PointEndInteractionEvent)
    panel.settle()
    assert panel.session.has_preview


def test_what_a_scene_misses_is_said_until_something_else_is_chosen(panel: Panel) -> None:
    panel.session.state.model = "their_model"
    panel.module.exit()
    panel.module.enter()
    assert panel.status == "The model 'their_model' is not installed on this computer. Choose another one."
    panel.host.choose(panel.ui.modelComboBox, "A click model")
    assert panel.status.startswith("Press 'Include'")


def test_the_chosen_model_says_what_it_is(panel: Panel) -> None:
    assert panel.ui.modelComboBox.toolTip() == "Made for tests. Licence of the weights: CC0."


def test_another_panel_state_is_shown(panel: Panel) -> None:
    """As when a saved scene is loaded, or a script sets the parameter node."""
    panel.session.state.model = "volume_model"
    panel.session.state.overlay_opacity = 0.25
    assert panel.ui.modelComboBox.currentText() == "A volume model"
    assert panel.ui.overlayOpacitySlider.property("value") == pytest.approx(0.25)
    panel.session.state.model = "not here"
    assert panel.ui.modelComboBox.currentIndex() == -1
    assert panel.ui.positivePointButton.toolTip() == "The model 'not here' is not installed: choose another one."
