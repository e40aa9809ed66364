"""Whole volumes, and several jobs at a time. The engine is in memory: wiring only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import slicer
from panel_support import BESIDE, INSIDE, Panel

# Whole volumes -------------------------------------------------------------------------------------------------


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


def test_large_labels_are_prepared_bit_by_bit_and_nothing_is_written_before(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from LKSegmentLib.scene import label_import

    monkeypatch.setattr(label_import, "STEP_SECONDS", -1.0)  # not a slice at a time
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.host.wait_until(lambda: panel.session._labels.is_busy)
    panel.host.wait(0.3)
    assert panel.session.is_busy and panel.session.state.target_segmentation is None
    assert not panel.session.writer.can_undo()
    monkeypatch.setattr(label_import, "STEP_SECONDS", 0.02)
    panel.settle()
    assert panel.host.entries(panel.ui.segmentComboBox) == ["New segment", "liver", "spleen"]


@pytest.mark.parametrize("leave", ["the volume is deleted", "the scene is closed"])
def test_labels_on_their_way_into_a_scene_that_changes_do_not_come(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    from LKSegmentLib.scene import label_import

    monkeypatch.setattr(label_import, "STEP_SECONDS", -1.0)
    panel.host.choose(panel.ui.modelComboBox, "A volume model")
    panel.host.press(panel.ui.segmentVolumeButton)
    panel.host.wait_until(lambda: panel.session._labels.is_busy)
    if leave == "the scene is closed":
        slicer.mrmlScene.Clear(0)
    else:
        slicer.mrmlScene.RemoveNode(panel.session.state.input_volume)
    monkeypatch.setattr(label_import, "STEP_SECONDS", 0.02)
    panel.settle()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


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


# Jobs ----------------------------------------------------------------------------------------------------------


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
