"""The panel, by pressing its buttons over a real scene. The engine is in memory: wiring only."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import slicer
from panel_support import Panel

INSIDE = (10.0, 11.0, 12.0)
BESIDE = (18.0, 11.0, 12.0)


# Opening ------------------------------------------------------------------------------------------------------


def test_opening_chooses_the_only_volume_and_says_what_to_do(panel: Panel) -> None:
    assert panel.session.state.input_volume.GetName() == "CT abdomen"
    assert panel.host.entries(panel.ui.modelComboBox) == ["A click model", "A volume model"]
    assert panel.session.state.model == "click_model"
    assert "Include" in panel.status
    assert panel.engine.starts == 0, "no worker before it is needed"


def test_opening_chooses_the_volume_that_is_shown(
    add_volume: Callable[..., Any], open_panel: Callable[[], Panel]
) -> None:
    add_volume("first")
    shown = add_volume("shown")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode").SetBackgroundVolumeID(shown.GetID())
    assert open_panel().session.state.input_volume is shown


def test_opening_without_a_volume_says_so(open_panel: Callable[[], Panel], add_volume: Callable[..., Any]) -> None:
    panel = open_panel()
    assert panel.status == "Choose an input volume first."
    for name in ("positivePointButton", "undoPointButton", "acceptButton", "cancelButton", "stopButton"):
        assert not getattr(panel.ui, name).isEnabled()
    volume = add_volume("later")
    assert panel.session.state.input_volume is volume
    assert panel.ui.positivePointButton.isEnabled()


def test_every_control_has_a_tooltip_enabled_or_not(panel: Panel) -> None:
    from PySide6 import QtWidgets

    kinds = (QtWidgets.QPushButton, QtWidgets.QComboBox, QtWidgets.QCheckBox, QtWidgets.QProgressBar)
    controls = [child for kind in kinds for child in panel.module.parent.findChildren(kind) if child.objectName()]
    assert len(controls) >= 13
    for control in controls:
        assert control.toolTip(), control.objectName()
    disabled = {control.objectName(): control.toolTip() for control in controls if not control.isEnabled()}
    assert disabled["acceptButton"] == "There is no preview to accept: place a point first."
    assert disabled["segmentVolumeButton"] == "This model segments what is pointed at: place points instead."


def test_no_model_installed_is_said(
    open_panel: Callable[[], Panel], add_volume: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_volume()
    panel = open_panel()
    from LKSegmentLib.scene import panel_session

    monkeypatch.setattr(panel_session, "catalogue", list)
    panel.module.enter()
    assert panel.status.startswith("No model is installed: put a model package into ")
    assert not panel.ui.positivePointButton.isEnabled()


def test_metadata(panel: Panel) -> None:
    about = panel.module.metadata
    assert about.title == "LKSegment"
    assert about.categories == ["Segmentation"]
    assert not about.icon.isNull()


# Points -------------------------------------------------------------------------------------------------------


def test_include_and_exclude_are_the_mouse_mode(panel: Panel) -> None:
    interaction = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
    panel.host.press(panel.ui.positivePointButton)
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert panel.session.placing() == "positive"
    assert panel.engine.starts == 1, "the worker warms up while the person aims"
    panel.host.press(panel.ui.negativePointButton)
    assert panel.session.placing() == "negative"
    assert not panel.ui.positivePointButton.isChecked()
    assert panel.ui.negativePointButton.isChecked()
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)  # Esc, or the mouse mode toolbar
    assert not panel.ui.negativePointButton.isChecked()
    panel.host.press(panel.ui.positivePointButton)
    panel.host.press(panel.ui.positivePointButton)
    assert panel.session.placing() == ""


def test_a_point_gives_a_preview(panel: Panel) -> None:
    panel.click(True, INSIDE)
    assert [len(points) for points, _ in panel.engine.clicks] == [1]
    assert panel.session.has_preview
    assert panel.status == "Preview: 0.343 ml. Refine it with points, or accept it."
    assert panel.ui.acceptButton.isEnabled()
    assert panel.session.state.target_segmentation is None, "nothing of the user's is touched before accepting"


def test_the_preview_is_no_segmentation_to_choose(panel: Panel) -> None:
    panel.click(True, INSIDE)
    assert panel.host.entries(panel.ui.segmentationSelector) == ["Create new segmentation"]


def test_points_in_quick_succession_are_one_request_in_click_order(panel: Panel) -> None:
    panel.place(True, INSIDE)
    panel.place(False, BESIDE)
    panel.place(True, (10.0, 11.0, 16.0))
    panel.settle()
    assert len(panel.engine.clicks) == 1
    points, _ = panel.engine.clicks[0]
    assert [point.positive for point in points] == [True, False, True]
    assert [point.ras for point in points] == [INSIDE, BESIDE, (10.0, 11.0, 16.0)]


def test_a_moved_point_asks_again(panel: Panel) -> None:
    panel.click(True, INSIDE)
    node = panel.session.state.positive_points
    node.SetNthControlPointPositionWorld(0, *BESIDE)
    node.InvokeEvent(node.PointEndInteractionEvent)
    panel.settle()
    assert [points[0].ras for points, _ in panel.engine.clicks] == [INSIDE, BESIDE]


def test_undo_takes_points_back_one_by_one(panel: Panel) -> None:
    panel.click(True, INSIDE)
    before = panel.session.preview._voxels()[1].sum()
    panel.click(True, (10.0, 11.0, 19.0))
    assert panel.session.preview._voxels()[1].sum() > before
    panel.host.press(panel.ui.undoPointButton)
    panel.settle()
    assert panel.session.preview._voxels()[1].sum() == before
    panel.host.press(panel.ui.undoPointButton)
    panel.settle()
    assert not panel.session.has_preview
    assert not panel.ui.undoPointButton.isEnabled()
    assert not panel.ui.cancelButton.isEnabled()


def test_cancel_removes_preview_and_points(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.click(False, BESIDE)
    panel.host.press(panel.ui.cancelButton)
    panel.settle()
    assert not panel.session.has_preview
    assert panel.session.points() == []
    assert len(panel.engine.clicks) == 2, "removing the points asks for nothing"


def test_a_change_of_model_or_image_asks_again(panel: Panel, add_volume: Callable[..., Any]) -> None:
    panel.click(True, INSIDE)
    add_volume("MR")
    panel.host.choose(panel.ui.inputVolumeSelector, "MR")
    panel.settle()
    assert len(panel.engine.clicks) == 2
    assert [image.volume.array.shape for image in panel.engine.closed_images] == [(24, 28, 32)]
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.settle()
    assert len(panel.engine.clicks) == 2, "a volume model takes no points"


def test_edited_voxels_are_sent_again(panel: Panel) -> None:
    panel.click(True, INSIDE)
    array = slicer.util.arrayFromVolume(panel.session.state.input_volume)
    array[:] = 7
    slicer.util.arrayFromVolumeModified(panel.session.state.input_volume)
    panel.click(True, (10.0, 11.0, 16.0))
    assert len(panel.engine.closed_images) == 1


# Accepting ----------------------------------------------------------------------------------------------------


def test_accept_makes_a_segment_of_a_new_segmentation(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    node = panel.session.state.target_segmentation
    assert node.GetName() == "CT abdomen segmentation"
    assert panel.status == "Written into the segment 'Structure 1' of 'CT abdomen segmentation'."
    segment_id = node.GetSegmentation().GetNthSegmentID(0)
    mask = panel.target_mask(segment_id)
    assert mask.sum() == 7**3
    assert mask[12, 11, 10]
    assert panel.session.points() == [] and not panel.session.has_preview
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "Structure 1"]
    assert not panel.ui.acceptButton.isEnabled()


def test_each_new_structure_gets_a_segment_of_its_own(panel: Panel) -> None:
    for ras in (INSIDE, BESIDE):
        panel.click(True, ras)
        panel.host.press(panel.ui.acceptButton)
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "Structure 1", "Structure 2"]


def test_accept_adds_to_the_chosen_segment_and_undo_takes_it_back(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    panel.host.choose(panel.ui.segmentComboBox, "Structure 1")
    first = panel.target_mask().sum()
    panel.click(True, BESIDE)
    panel.host.press(panel.ui.acceptButton)
    assert panel.target_mask().sum() == 2 * first
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "Structure 1"]
    panel.session.writer.undo()
    assert panel.target_mask().sum() == first


def test_undo_takes_back_a_new_segment_whole(panel: Panel) -> None:
    for ras in (INSIDE, BESIDE):
        panel.click(True, ras)
        panel.host.press(panel.ui.acceptButton)
    panel.session.writer.undo()
    panel.host.process_events()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "Structure 1"]
    panel.session.writer.undo()
    panel.host.process_events()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment"]


def test_accept_uses_the_undo_of_the_users_segment_editor(panel: Panel) -> None:
    saved: list[str] = []
    editor = types.SimpleNamespace(saveStateForUndo=lambda: saved.append("saved"))
    representation = types.SimpleNamespace(self=lambda: types.SimpleNamespace(editor=editor))
    slicer.modules.segmenteditor = types.SimpleNamespace(widgetRepresentation=lambda: representation)
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    assert saved == [], "the Segment Editor is not open on this segmentation"
    settings = slicer.vtkMRMLSegmentEditorNode()
    settings.SetSingletonTag("SegmentEditor")
    settings = slicer.mrmlScene.AddNode(settings)
    settings.SetAndObserveSegmentationNode(panel.session.state.target_segmentation)
    panel.click(True, BESIDE)
    panel.host.press(panel.ui.acceptButton)
    assert saved == ["saved"]


def test_accept_into_a_segmentation_made_with_the_selector(panel: Panel) -> None:
    """Slicer's "Create new Segmentation" makes a node without geometry and display."""
    node = panel.ui.segmentationSelector.addNode()
    panel.host.process_events()
    assert panel.session.state.target_segmentation is node
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    assert node.GetDisplayNode() is not None
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is panel.session.state.input_volume
    assert panel.target_mask(node.GetSegmentation().GetNthSegmentID(0)).sum() == 7**3


def test_accept_into_a_surface_is_refused_with_a_sentence_and_nothing_is_lost(panel: Panel) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    panel.host.choose(panel.ui.segmentationSelector, "surfaces")
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    assert panel.status.startswith("The segmentation 'surfaces' is stored as closed surface")
    assert panel.session.has_preview and len(panel.session.points()) == 1
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_accept_that_fails_leaves_no_empty_segment(panel: Panel) -> None:
    settings = slicer.vtkMRMLSegmentEditorNode()
    settings.SetSingletonTag("SegmentEditor")
    settings = slicer.mrmlScene.AddNode(settings)
    settings.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    settings.SetMaskSegmentID("gone")
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    assert "has no segment 'gone'" in panel.status
    assert panel.session.state.target_segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert panel.session.has_preview


def test_accept_where_the_segment_editor_allows_nothing_keeps_the_preview(panel: Panel) -> None:
    settings = slicer.vtkMRMLSegmentEditorNode()
    settings.SetSingletonTag("SegmentEditor")
    settings = slicer.mrmlScene.AddNode(settings)
    settings.SetSourceVolumeIntensityMask(True)
    settings.SetSourceVolumeIntensityMaskRange(1000.0, 2000.0)  # the volume holds zeros
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.acceptButton)
    assert "Segment Editor" in panel.status
    assert panel.session.has_preview and len(panel.session.points()) == 1
    assert panel.session.state.target_segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_preview_is_accepted_beside_its_own_volume(panel: Panel, add_volume: Callable[..., Any]) -> None:
    segmented, other = panel.session.state.input_volume, add_volume("other")
    panel.click(True, INSIDE)
    panel.engine.hold = True
    panel.session.state.input_volume = other
    panel.host.press(panel.ui.acceptButton)
    node = panel.session.state.target_segmentation
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is segmented


def test_another_segmentation_means_a_new_segment(panel: Panel) -> None:
    """Segment ids repeat between segmentations; the result must not land in a segment nobody chose."""
    for name in ("one", "two"):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.GetSegmentation().AddEmptySegment("same", f"of {name}")
    panel.host.choose(panel.ui.segmentationSelector, "one")
    panel.host.choose(panel.ui.segmentComboBox, "of one")
    panel.host.choose(panel.ui.segmentationSelector, "two")
    assert panel.ui.segmentComboBox.currentText() == "New segment"


# Whole volumes ------------------------------------------------------------------------------------------------


def test_a_volume_model_labels_the_volume_in_one_undo_step(panel: Panel) -> None:
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    assert not panel.ui.positivePointButton.isEnabled()
    panel.engine.hold = True
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.host.wait_until(lambda: panel.ui.progressBar.value() == 40)
    assert panel.ui.progressBar.format() == "looking at windows %p%"
    assert not panel.ui.segmentVolumeButton.isEnabled()
    assert panel.ui.segmentVolumeButton.toolTip() == "A job is running: stop it first."
    panel.engine.hold = False
    panel.settle()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "liver", "spleen"]
    assert panel.status == "2 segments were added to 'CT abdomen segmentation'."
    assert panel.ui.segmentVolumeButton.isEnabled()
    panel.session.writer.undo()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment"]


def test_labels_that_cannot_go_where_they_should_go_into_a_new_segmentation(panel: Panel) -> None:
    surfaces = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    surfaces.GetSegmentation().SetSourceRepresentationName("Closed surface")
    panel.host.choose(panel.ui.segmentationSelector, "surfaces")
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.settle()
    node = panel.session.state.target_segmentation
    assert node is not surfaces and node.GetSegmentation().GetNumberOfSegments() == 2
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is panel.session.state.input_volume
    assert panel.status.startswith("The segmentation 'surfaces' is stored as closed surface")
    assert panel.status.endswith(f"The 2 segments went into the new segmentation '{node.GetName()}' instead.")


def test_labels_of_a_volume_that_was_warped_meanwhile_are_kept(panel: Panel) -> None:
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.engine.hold = True
    panel.host.press(panel.ui.segmentVolumeButton)
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    panel.session.state.input_volume.SetAndObserveTransformNodeID(warp.GetID())
    panel.engine.hold = False
    panel.settle()
    node = panel.session.state.target_segmentation
    assert node.GetSegmentation().GetNumberOfSegments() == 2 and node.GetParentTransformNode() is None
    assert "instead" in panel.status


def test_labels_are_added_whatever_the_segment_editor_allows(panel: Panel) -> None:
    settings = slicer.vtkMRMLSegmentEditorNode()
    settings.SetSingletonTag("SegmentEditor")
    settings = slicer.mrmlScene.AddNode(settings)
    settings.SetSourceVolumeIntensityMask(True)
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.settle()
    assert panel.status == "2 segments were added to 'CT abdomen segmentation'."


# Jobs ---------------------------------------------------------------------------------------------------------


def test_stop_keeps_points_and_preview(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.engine.hold = True
    panel.place(True, BESIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    panel.host.press(panel.ui.stopButton)
    panel.settle()
    assert panel.status == "Stopped."
    assert panel.session.has_preview and len(panel.session.points()) == 2
    assert panel.ui.progressBar.value() == 0
    assert not panel.ui.stopButton.isEnabled()


def test_a_failure_is_one_sentence_and_the_next_point_works(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.engine.failure = "The worker ran out of memory. Choose another device."
    panel.click(True, BESIDE)
    assert panel.status == "The worker ran out of memory. Choose another device."
    assert panel.session.has_preview, "the last good mask stays"
    panel.click(True, (10.0, 11.0, 16.0))
    assert len(panel.engine.clicks[-1][0]) == 3
    assert panel.status.startswith("Preview")


def test_only_the_newest_answer_is_shown(panel: Panel) -> None:
    panel.engine.hold = True
    panel.place(True, INSIDE)
    panel.host.wait_until(lambda: len(panel.engine.clicks) == 1)
    panel.place(True, BESIDE)
    panel.host.wait_until(lambda: len(panel.engine.clicks) == 2)
    panel.engine.answer_one()
    panel.host.wait(0.1)
    assert not panel.session.has_preview, "the first answer lacks the second point"
    panel.engine.hold = False
    panel.settle()
    assert panel.session.preview._voxels()[1].sum() == 2 * 7**3


def test_a_click_does_not_lose_the_whole_volume_job_before_it(panel: Panel) -> None:
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.engine.hold = True
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.host.choose(panel.ui.modelComboBox, "A click model")
    panel.place(True, INSIDE)
    panel.host.wait_until(lambda: len(panel.engine.clicks) == 1)
    panel.engine.answer_one()
    panel.host.wait_until(lambda: len(panel.host.entries(panel.ui.segmentComboBox)) == 3)
    panel.engine.hold = False
    panel.settle()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "liver", "spleen"]
    assert panel.session.has_preview


def test_a_click_in_another_volume_does_not_end_the_whole_volume_job(
    panel: Panel, add_volume: Callable[..., Any]
) -> None:
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.engine.hold = True
    panel.host.press(panel.ui.segmentVolumeButton)
    job = panel.session.job
    add_volume("MR")
    panel.host.choose(panel.ui.inputVolumeSelector, "MR")
    panel.host.choose(panel.ui.modelComboBox, "A click model")
    panel.place(True, INSIDE)
    panel.host.wait(0.4)
    assert panel.status == "A job is running on 'CT abdomen': wait until it is done, or press Stop first."
    assert panel.session.job is job and panel.engine.clicks == [] and panel.engine.cancelled == []
    panel.engine.hold = False
    panel.settle()
    assert panel.status.startswith("2 segments were added")
    panel.click(True, BESIDE)
    assert len(panel.engine.clicks[-1][0]) == 2 and panel.session.has_preview


def test_accepting_a_preview_does_not_stop_the_whole_volume_job(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.engine.hold = True
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.host.press(panel.ui.acceptButton)
    panel.engine.hold = False
    panel.settle()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "Structure 1", "liver", "spleen"]


def test_labels_go_beside_the_volume_they_were_computed_from(panel: Panel, add_volume: Callable[..., Any]) -> None:
    segmented, other = panel.session.state.input_volume, add_volume("other")
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.engine.hold = True
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.session.state.input_volume = other
    panel.engine.hold = False
    panel.settle()
    node = panel.session.state.target_segmentation
    assert node.GetName() == "CT abdomen segmentation"
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is segmented


@pytest.mark.parametrize("button", ["acceptButton", "cancelButton"])
def test_an_answer_that_was_on_its_way_does_not_come_back_after_the_end(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, button: str
) -> None:
    panel.click(True, INSIDE)
    panel.engine.hold = True
    panel.place(True, BESIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    monkeypatch.setattr(panel.engine, "cancel", lambda job: None)  # the worker had finished before it heard of it
    panel.host.press(getattr(panel.ui, button))
    said = panel.status
    panel.engine.hold = False
    panel.settle()
    assert not panel.session.has_preview
    assert panel.session.preview.node is None
    assert panel.status == said, "the last word is what was done with the preview"


def test_polling_ends_with_the_jobs(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.host.wait_until(lambda: not panel.widget.poll_timer.isActive())


def test_restart_worker_closes_the_old_one_and_asks_again(panel: Panel) -> None:
    panel.click(True, INSIDE)
    panel.ui.advancedCollapsibleButton.setCollapsed(False)
    panel.host.press(panel.ui.restartWorkerButton)
    panel.host.wait_until(lambda: panel.engine.is_closed)
    panel.settle()
    assert len(panel.engine.clicks) == 2, "the preview follows from points: it is made again"


# The scene under a running job ----------------------------------------------------------------------------------


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


# The overlay --------------------------------------------------------------------------------------------------


def test_overlay_is_shown_over_the_image_and_put_back(panel: Panel, add_volume: Callable[..., Any]) -> None:
    mine = add_volume("my foreground")
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetForegroundVolumeID(mine.GetID())
    composite.SetForegroundOpacity(0.1)
    panel.click(True, INSIDE)
    assert panel.engine.clicks[-1][1] is False, "maps are not asked for while nobody looks"
    panel.host.press(panel.ui.overlayCheckBox)
    panel.settle()
    assert panel.engine.clicks[-1][1] is True
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 2"]
    shown = panel.session.state.overlay
    assert composite.GetForegroundVolumeID() == shown.GetID()
    panel.ui.overlayOpacitySlider.setValue(0.8)
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    panel.host.choose(panel.ui.overlayMapComboBox, "gate 2")
    assert panel.session.state.overlay is not shown
    panel.module.exit()
    assert composite.GetForegroundVolumeID() == mine.GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.1)
    panel.module.enter()
    assert composite.GetForegroundVolumeID() == panel.session.state.overlay.GetID()
    panel.host.press(panel.ui.overlayCheckBox)
    assert composite.GetForegroundVolumeID() == mine.GetID()
    assert len(panel.engine.clicks) == 2


def test_an_answer_after_the_panel_is_left_shows_no_overlay(panel: Panel) -> None:
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.host.press(panel.ui.overlayCheckBox)
    panel.engine.hold = True
    panel.place(True, INSIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    panel.module.exit()
    panel.engine.hold = False
    panel.settle()
    assert composite.GetForegroundVolumeID() is None
    assert panel.session.has_preview
    panel.module.enter()
    assert composite.GetForegroundVolumeID() == panel.session.state.overlay.GetID()


def test_leaving_the_panel_ends_placing(panel: Panel) -> None:
    panel.host.press(panel.ui.positivePointButton)
    panel.module.exit()
    assert panel.session.placing() == ""


# This computer ------------------------------------------------------------------------------------------------


def test_device_and_interpreter_are_kept_with_the_application(panel: Panel) -> None:
    panel.host.choose(panel.ui.deviceComboBox, "CPU")
    panel.ui.interpreterPathEdit.setCurrentPath("/opt/python/bin/python3")
    panel.click(True, INSIDE)
    assert panel.engine.devices == ["cpu"]
    settings = slicer.app.userSettings()
    assert settings.value("LKSegment/Device") == "cpu"
    assert settings.value("LKSegment/WorkerPython") == "/opt/python/bin/python3"
    panel.module.reload()
    assert panel.ui.deviceComboBox.currentText() == "CPU"
    assert panel.widget.logic.interpreter == "/opt/python/bin/python3"


def test_the_chosen_interpreter_runs_the_worker(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    from LKSegmentLib.engine import client

    made: list[tuple[Any, ...]] = []
    monkeypatch.undo()
    monkeypatch.setattr(client, "EngineClient", lambda *arguments: made.append(arguments))
    panel.widget.logic.make_engine()
    panel.widget.logic.interpreter = "/opt/python/bin/python3"
    panel.widget.logic.make_engine()
    assert made == [(), ("/opt/python/bin/python3", {})]


# Ending -------------------------------------------------------------------------------------------------------


def test_reload_brings_new_code_and_ends_the_worker(panel: Panel) -> None:
    panel.click(True, INSIDE)
    before, library = panel.engine, sys.modules["LKSegmentLib.scene.panel_session"]
    panel.widget.onReload()
    assert before.is_closed
    assert sys.modules["LKSegmentLib.scene.panel_session"] is not library
    assert panel.session.points() != [], "points are the scene's"
    assert panel.session.preview.node is None, "a preview nobody holds is removed"
    panel.host.wait(0.4)


def test_quitting_stops_timers_and_worker(panel: Panel) -> None:
    panel.engine.hold = True
    panel.place(True, INSIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    widget = panel.widget
    panel.module.close()
    assert panel.engine.is_closed
    assert not widget.poll_timer.isActive() and not widget.request_timer.isActive()


def test_the_self_test_opens_the_panel_and_gives_up_at_last(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def module_widget(name: str) -> Any:
        opened.append(name)
        return panel.widget

    monkeypatch.setattr(slicer.util, "getModuleWidget", module_widget)
    monkeypatch.setattr(panel.module.python, "SELF_TEST_SECONDS", 0.1)
    test = panel.module.python.LKSegmentTest()
    test.setUp()
    test.test_panel_opens_without_torch()
    assert opened == ["LKSegment"]
    panel.engine.hold = True
    model = types.SimpleNamespace(name="lk_click", title="", kind="click", summary="", licence="")
    monkeypatch.setattr("LKSegmentLib.scene.panel_session.catalogue", lambda: [model])
    with pytest.raises(AssertionError, match="no answer"):
        test.test_click_becomes_a_segment()
    assert panel.engine.is_closed
