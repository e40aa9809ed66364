"""Points and the preview that follows them, and accepting it into a segment. The engine is in memory: wiring only."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import slicer
from panel_support import BESIDE, INSIDE, Panel

# Points --------------------------------------------------------------------------------------------------------


def test_include_and_exclude_are_the_mouse_mode(panel: Panel) -> None:
    interaction = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
    panel.host.press(panel.ui.positivePointButton)
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert panel.session.pointing.tool == "positive"
    assert panel.engine.starts == 1, "the worker warms up while the person aims"
    panel.host.press(panel.ui.negativePointButton)
    assert panel.session.pointing.tool == "negative"
    assert not panel.ui.positivePointButton.isChecked()
    assert panel.ui.negativePointButton.isChecked()
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)  # the right button, or the mouse mode toolbar
    assert not panel.ui.negativePointButton.isChecked()
    panel.host.press(panel.ui.positivePointButton)
    panel.host.press(panel.ui.positivePointButton)
    assert panel.session.pointing.tool == ""


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


# Accepting -----------------------------------------------------------------------------------------------------


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
