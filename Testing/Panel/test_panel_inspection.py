"""The section "See why": choosing, recording and showing maps, by pressing buttons. The engine is in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import slicer
from panel_support import BESIDE, INSIDE, Panel
from PySide6 import QtCore


@pytest.fixture
def red(panel: Panel) -> Any:
    """The layers of a slice view, with a foreground and a further layer of the user's own."""
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetForegroundVolumeID(slicer.util.addVolumeFromArray(_zeros(), name="PET").GetID())
    composite.SetForegroundOpacity(0.1)
    composite.SetNthLayerVolumeID(3, slicer.util.addVolumeFromArray(_zeros(), name="dose").GetID())
    panel.session.state.input_volume = slicer.mrmlScene.GetFirstNodeByName("CT abdomen")
    return composite


def _zeros() -> Any:
    import numpy as np

    return np.zeros((24, 28, 32), np.int16)


def layers(composite: Any) -> list[Any]:
    names = []
    for place in (1, *range(3, 3 + composite.GetNumberOfAdditionalLayers())):
        volume = composite.GetNthLayerVolume(place)
        names.append((volume.GetName() if volume else "", round(composite.GetNthLayerOpacity(place), 6)))
    return names


def ticks(panel: Panel) -> dict[str, bool]:
    widget = panel.ui.mapsListWidget
    items = [widget.item(row) for row in range(widget.count())]
    return {item.text(): item.checkState() == QtCore.Qt.CheckState.Checked for item in items}


def tick(panel: Panel, row: int, on: bool = True) -> None:
    state = QtCore.Qt.CheckState.Checked if on else QtCore.Qt.CheckState.Unchecked
    panel.ui.mapsListWidget.item(row).setCheckState(state)
    panel.host.process_events()


def with_volume_model(panel: Panel) -> None:
    panel.host.choose(panel.ui.modelComboBox, "A volume model")


# What a model shows -------------------------------------------------------------------------------------------


def test_what_a_model_shows_is_asked_when_somebody_looks_and_once(panel: Panel) -> None:
    panel.settle()
    assert panel.engine.listings == [], "the worker is not started for a section that is closed"
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    assert ticks(panel) == {
        "gate 1 of click_model": True,
        "gate 2 of click_model": False,
        "weights of click_model": False,
        "kernel of click_model": False,
    }
    assert "Operator: a gate" in panel.ui.mapsListWidget.item(0).toolTip()
    with_volume_model(panel)
    panel.settle()
    panel.host.choose(panel.ui.modelComboBox, "A click model")
    panel.settle()
    assert panel.engine.listings == ["click_model", "volume_model"]


def test_the_sentence_is_always_there(panel: Panel) -> None:
    for collapsed in (True, False):
        panel.ui.whyCollapsibleButton.setCollapsed(collapsed)
        assert panel.ui.sentenceLabel.isVisibleTo(panel.module.parent)
    assert "it does not prove cause" in panel.ui.sentenceLabel.text()


def test_what_is_ticked_is_recorded_and_remembered_for_each_model(panel: Panel) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    tick(panel, 1)
    tick(panel, 0, False)
    panel.record()
    assert panel.engine.inspections == [(["gate 2"], [])]
    panel.host.choose(panel.ui.modelComboBox, "A click model")
    panel.settle()
    assert ticks(panel)["gate 1 of click_model"]
    with_volume_model(panel)
    panel.settle()
    assert ticks(panel) == {name: name.startswith("gate 2") for name in ticks(panel)}
    tick(panel, 1, False)
    assert not panel.ui.recordButton.isEnabled()
    assert panel.ui.recordButton.toolTip() == "Choose a map to record first."


def test_one_channel_is_typed(panel: Panel) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    panel.ui.mapNameEdit.setText("gate 1 #5")
    panel.ui.mapNameEdit.editingFinished.emit()
    panel.record()
    assert panel.engine.inspections == [(["gate 1", "gate 1 #5"], [])]
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 1 #5"]


# Recording ----------------------------------------------------------------------------------------------------


def test_recording_brings_maps_and_tables_and_shows_the_first(panel: Panel, red: Any) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    for row in (1, 2, 3):
        tick(panel, row)
    panel.engine.hold = True
    panel.host.press(panel.ui.recordButton)
    panel.host.wait_until(lambda: panel.ui.progressBar.value() == 40)
    assert panel.status.startswith("2 maps, 3 MB"), "what it takes is told before it is computed"
    assert not panel.ui.segmentVolumeButton.isEnabled()
    panel.engine.hold = False
    panel.settle()
    assert panel.status == "Recorded maps: 3, tables: 1."
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 2"], "a kernel has no place in the image"
    assert panel.host.entries(panel.ui.tableComboBox) == ["weights"]
    assert panel.session.state.overlay_visible
    assert layers(red)[0] == ("CT abdomen gate 1", 0.5)
    assert panel.session.state.target_segmentation is None, "recording writes no segments"


def test_maps_come_one_at_a_time_so_that_slicer_stays_responsive(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    tick(panel, 1)
    counts: list[int] = []
    inspection, step = panel.session.inspection, panel.session.inspection.step

    def counted() -> bool:
        before = len(inspection.maps())
        done = bool(step())
        counts.append(len(inspection.maps()) - before)
        return done

    monkeypatch.setattr(inspection, "step", counted)
    panel.record()
    assert [count for count in counts if count] == [1, 1]


def test_maps_of_a_click_model_need_a_point_and_follow_the_points(panel: Panel, red: Any) -> None:
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    assert panel.ui.recordButton.toolTip() == "The maps of this model depend on the clicks: place a point first."
    panel.click(True, INSIDE)
    assert panel.engine.clicks[-1][1] is False, "maps are not asked for while nobody looks"
    panel.host.press(panel.ui.recordButton)
    panel.settle()
    assert panel.engine.inspections == [(["gate 1"], panel.session.points())]
    assert panel.session.has_preview and layers(red)[0][0] == "CT abdomen gate 1"
    assert panel.status == "Recorded maps: 1, tables: 0." and len(panel.engine.clicks) == 1, "not asked for twice"
    panel.click(True, BESIDE)
    assert panel.engine.clicks[-1][1] is True and len(panel.engine.clicks[-1][0]) == 2
    assert panel.session.preview._voxels()[1].sum() == 2 * 7**3


def test_recording_again_replaces_and_removing_leaves_nothing(panel: Panel, red: Any) -> None:
    def everything() -> dict[str, int]:
        kinds = ("ScalarVolumeNode", "TableNode", "PlotSeriesNode", "PlotChartNode", "ScalarVolumeDisplayNode")
        return {kind: slicer.mrmlScene.GetNumberOfNodesByClass(f"vtkMRML{kind}") for kind in kinds}

    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    before, mine = everything(), layers(red)
    tick(panel, 2)
    panel.record()
    once = everything()
    panel.record()
    assert everything() == once != before
    panel.host.press(panel.ui.removeMapsButton)
    assert everything() == before and layers(red) == mine
    assert panel.status == "Removed maps: 1, tables: 1."
    assert not panel.ui.removeMapsButton.isEnabled()


# Two at a time ------------------------------------------------------------------------------------------------


def recorded(panel: Panel) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    for row in (1, 2):
        tick(panel, row)
    panel.record()


def test_two_maps_with_opacity_threshold_and_scale_of_their_own(panel: Panel, red: Any) -> None:
    recorded(panel)
    panel.host.choose(panel.ui.secondMapComboBox, "gate 2")
    panel.ui.secondOpacitySlider.setValue(0.25)
    panel.ui.overlayOpacitySlider.setValue(0.8)
    assert layers(red) == [("CT abdomen gate 1", 0.8), ("dose", 1.0), ("CT abdomen gate 2", 0.25)]
    first, second = panel.session.state.overlay.GetDisplayNode(), panel.session.state.second_overlay.GetDisplayNode()
    assert first.GetColorNode().GetName() != second.GetColorNode().GetName()
    panel.ui.overlayHiddenSlider.setValue(0.0)
    panel.ui.secondHiddenSlider.setValue(0.75)
    panel.host.choose(panel.ui.scaleComboBox, "Everything the quantity can be")
    assert not first.GetApplyThreshold()
    assert second.GetLowerThreshold() == pytest.approx(0.75)
    assert (second.GetWindowLevelMin(), second.GetWindowLevelMax()) == (0.0, 1.0)
    panel.host.choose(panel.ui.secondMapComboBox, "None")
    assert layers(red) == [("CT abdomen gate 1", 0.8), ("dose", 1.0)]


def test_restore_my_layers_puts_everything_back(panel: Panel, red: Any) -> None:
    before = layers(red)
    assert panel.ui.restoreLayersButton.toolTip() == "The views are as you had them."
    recorded(panel)
    panel.host.choose(panel.ui.secondMapComboBox, "gate 2")
    red.SetForegroundVolumeID(panel.session.state.input_volume.GetID())
    panel.host.press(panel.ui.restoreLayersButton)
    assert layers(red) == before
    assert not panel.ui.overlayCheckBox.isChecked() and not panel.ui.restoreLayersButton.isEnabled()
    panel.host.press(panel.ui.overlayCheckBox)
    assert layers(red)[0][0] == "CT abdomen gate 1", "what was recorded is still there"


def test_overlay_is_shown_over_the_image_and_put_back(panel: Panel, red: Any) -> None:
    before = layers(red)
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.overlayCheckBox)
    panel.settle()
    assert panel.engine.clicks[-1][1] is True
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 2"], "all, while none was chosen"
    panel.ui.overlayOpacitySlider.setValue(0.8)
    assert layers(red)[0] == ("CT abdomen gate 1", 0.8)
    panel.host.choose(panel.ui.overlayMapComboBox, "gate 2")
    assert layers(red)[0] == ("CT abdomen gate 2", 0.8)
    panel.module.exit()
    assert layers(red) == before
    panel.module.enter()
    assert layers(red)[0] == ("CT abdomen gate 2", 0.8)
    panel.host.press(panel.ui.overlayCheckBox)
    assert layers(red) == before
    assert len(panel.engine.clicks) == 2


def test_an_answer_after_the_panel_is_left_shows_no_overlay(panel: Panel, red: Any) -> None:
    before = layers(red)
    panel.host.press(panel.ui.overlayCheckBox)
    panel.engine.hold = True
    panel.place(True, INSIDE)
    panel.host.wait_until(lambda: panel.session.job is not None)
    panel.module.exit()
    panel.engine.hold = False
    panel.settle()
    assert layers(red) == before
    assert panel.session.has_preview
    panel.module.enter()
    assert layers(red)[0][0] == "CT abdomen gate 1"


def test_cancel_hides_the_maps_of_clicks_that_are_gone_and_keeps_them(panel: Panel, red: Any) -> None:
    before = layers(red)
    panel.host.press(panel.ui.overlayCheckBox)
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.cancelButton)
    assert layers(red) == before
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 2"]
    panel.click(True, BESIDE)
    assert layers(red)[0][0] == "CT abdomen gate 1"


# Words --------------------------------------------------------------------------------------------------------


def test_the_passport_and_what_was_measured_are_shown(panel: Panel) -> None:
    recorded(panel)
    line = panel.ui.passportLabel.text()
    assert line.startswith("gate 1: native gate; none (a factor); 0 to 1; neutral 0.5; colours from ")
    assert "identifiable: yes" in line
    assert panel.ui.faithfulnessLabel.text() == "No better than chance. (Measured on two images.)"
    panel.host.choose(panel.ui.overlayMapComboBox, "gate 2")
    assert panel.ui.faithfulnessLabel.text() == "Whether this map is faithful was never measured for this model."
    assert panel.ui.passportDetailsLabel.text() == ""
    panel.host.press(panel.ui.passportButton)
    assert "network: fake" in panel.ui.passportDetailsLabel.text()


# Crosshair ----------------------------------------------------------------------------------------------------


def test_the_reach_at_the_crosshair_lies_over_the_image(panel: Panel, red: Any) -> None:
    with_volume_model(panel)
    panel.put_crosshair(INSIDE)
    panel.host.press(panel.ui.reachButton)
    panel.settle()
    assert panel.engine.reaches == [(INSIDE, [])]
    assert panel.status == "50 % within a few mm."
    assert layers(red)[0][0] == "CT abdomen reach"
    assert panel.ui.faithfulnessLabel.text() == ""


def test_the_reach_of_a_click_model_needs_a_point(panel: Panel) -> None:
    panel.put_crosshair(BESIDE)
    assert panel.ui.reachButton.toolTip() == "The reach of this model depends on the clicks: place a point first."
    panel.click(True, INSIDE)
    panel.host.press(panel.ui.reachButton)
    panel.settle()
    assert panel.engine.reaches == [(BESIDE, panel.session.points())]


@pytest.mark.parametrize("button", ["reachButton", "probeButton"])
def test_a_crosshair_outside_the_volume_is_one_sentence(panel: Panel, button: str) -> None:
    recorded(panel)
    panel.put_crosshair((300.0, 0.0, 0.0))
    panel.host.press(getattr(panel.ui, button))
    assert panel.status.startswith("The crosshair at RAS (300, 0, 0) mm is outside the volume 'CT abdomen'")
    assert panel.engine.reaches == []


def test_without_a_crosshair_there_is_one_sentence(panel: Panel) -> None:
    with_volume_model(panel)
    panel.host.press(panel.ui.reachButton)
    assert panel.status == "There is no crosshair: open a slice view and move it with Shift and the mouse."


def test_values_at_the_crosshair(panel: Panel) -> None:
    assert panel.ui.probeButton.toolTip() == "No map of this volume was recorded: press 'Record' first."
    recorded(panel)
    panel.put_crosshair((31.0, 27.0, 23.0))
    panel.host.press(panel.ui.probeButton)
    said = panel.ui.probeLabel.text().split("\n")
    assert said == ["values at RAS (31, 27, 23) mm", "gate 1: 1 (none (a factor))", "gate 2: 1 (none (a factor))"]
    assert panel.host.entries(panel.ui.tableComboBox) == ["weights", "values at the crosshair"]
    panel.put_crosshair((0.0, 0.0, 0.0))
    panel.host.press(panel.ui.probeButton)
    assert "gate 1: 0 (none (a factor))" in panel.ui.probeLabel.text()
    assert len(panel.host.entries(panel.ui.tableComboBox)) == 2, "one table, its values replaced"


# Tables -------------------------------------------------------------------------------------------------------


def test_a_table_is_shown_and_its_row_follows_the_slice(panel: Panel) -> None:
    from LKSegmentLib.scene import layout, tables

    arrangement = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    arrangement.SetViewArrangement(arrangement.SlicerLayoutConventionalView)
    view = layout.slice_node(panel.host.context, "Red")
    view.SetSliceOffset(3.0)
    recorded(panel)
    panel.host.press(panel.ui.showTableButton)
    (node,) = panel.session.inspection.tables()
    selection = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")
    assert selection.GetActiveTableID() == node.GetID()

    def marked() -> list[int]:
        column = node.GetColumnIndex(tables.ON_SCREEN)
        return [row for row in range(node.GetNumberOfRows()) if node.GetCellText(row, column) == tables.MARK]

    assert marked() == [3]
    view.SetSliceOffset(7.2)
    panel.host.wait_until(lambda: marked() == [7], 5.0, "the mark to follow")
    panel.host.press(panel.ui.restoreLayersButton)
    assert arrangement.GetViewArrangement() == arrangement.SlicerLayoutConventionalView


# Bad input and events -----------------------------------------------------------------------------------------


def test_a_model_with_nothing_to_show_says_so(panel: Panel) -> None:
    panel.engine.nothing = 'The model "volume_model" has nothing to show.'
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    assert ticks(panel) == {}
    assert panel.ui.recordButton.toolTip() == 'The model "volume_model" has nothing to show.'
    assert panel.ui.reachButton.isEnabled(), "its reach can be shown"


@pytest.mark.parametrize(
    "sentence",
    ["There is no map 'gate 9'. The model \"volume_model\" shows: gate 1.", "The maps need 90 GB and 4 GB are free."],
)
def test_what_cannot_be_recorded_is_one_sentence_and_what_was_stays(panel: Panel, red: Any, sentence: str) -> None:
    recorded(panel)
    shown = layers(red)
    panel.engine.failure = sentence
    panel.host.press(panel.ui.recordButton)
    panel.settle()
    assert panel.status == sentence
    assert layers(red) == shown and panel.ui.recordButton.isEnabled()


def test_a_worker_that_cannot_say_what_a_model_shows_is_asked_again_after_a_restart(panel: Panel) -> None:
    panel.engine.failure = "The worker's Python has no torch."
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    assert panel.status == "The worker's Python has no torch."
    panel.host.wait(0.2)
    assert panel.engine.listings == ["click_model"], "not again and again"
    panel.ui.advancedCollapsibleButton.setCollapsed(False)
    panel.host.press(panel.ui.restartWorkerButton)
    panel.settle()
    assert len(panel.engine.listings) == 2 and len(ticks(panel)) == 4


def test_stopping_a_recording_keeps_what_there_is(panel: Panel, red: Any) -> None:
    recorded(panel)
    panel.engine.hold = True
    panel.host.press(panel.ui.recordButton)
    panel.host.wait_until(lambda: panel.ui.progressBar.value() == 40)
    panel.host.press(panel.ui.stopButton)
    panel.settle()
    assert panel.status == "Stopped."
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 2"]


def test_maps_go_over_the_volume_they_were_recorded_from(panel: Panel, add_volume: Callable[..., Any]) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    recorded_from, other = panel.session.state.input_volume, add_volume("other")
    panel.engine.hold = True
    panel.host.press(panel.ui.recordButton)
    panel.session.state.input_volume = other
    panel.engine.hold = False
    panel.settle()
    assert panel.host.entries(panel.ui.overlayMapComboBox) == []
    panel.session.state.input_volume = recorded_from
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1"]


def test_a_volume_deleted_and_a_scene_closed_while_recording(panel: Panel, add_volume: Callable[..., Any]) -> None:
    with_volume_model(panel)
    add_volume("other")
    for leave in (lambda: slicer.mrmlScene.RemoveNode(panel.session.state.input_volume), slicer.mrmlScene.Clear):
        panel.engine.hold = True
        panel.host.press(panel.ui.recordButton)
        panel.host.wait_until(lambda: panel.session.job is not None)
        leave()
        panel.engine.hold = False
        panel.settle()
        assert panel.session.inspection.maps() == []
    assert panel.status == "Choose an input volume first."


def test_a_warped_volume_refuses_its_maps_with_one_sentence(panel: Panel) -> None:
    with_volume_model(panel)
    panel.engine.hold = True
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.engine.hold = False
    panel.settle()
    panel.engine.hold = True
    panel.host.press(panel.ui.recordButton)
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    panel.session.state.input_volume.SetAndObserveTransformNodeID(warp.GetID())
    panel.engine.hold = False
    panel.settle()
    assert "non-linear" in panel.status
    assert panel.session.inspection.maps() == []


def test_a_scene_reloaded_without_the_package_shows_its_maps_and_says_what_it_cannot(
    panel: Panel, red: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from LKSegmentLib.scene import bundle, panel_session

    recorded(panel)
    panel.host.choose(panel.ui.secondMapComboBox, "gate 2")
    panel.ui.secondOpacitySlider.setValue(0.25)
    red.SetNthLayerOpacity(3, 0.45)
    panel.host.wait(0.2)
    path = bundle.write_mrb(panel.host.context, tmp_path / "scene.mrb")
    panel.module.exit()
    kept = [entry for entry in panel_session.catalogue() if entry.name == "other"]
    monkeypatch.setattr(panel_session, "catalogue", lambda: kept)
    slicer.mrmlScene.Clear(0)
    _import(panel, path, tmp_path)
    panel.module.enter()
    assert panel.host.entries(panel.ui.overlayMapComboBox) == ["gate 1", "gate 2"]
    assert panel.host.entries(panel.ui.tableComboBox) == ["weights"]
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert layers(composite) == [("CT abdomen gate 1", 0.5), ("dose", 0.45), ("CT abdomen gate 2", 0.25)]
    assert panel.ui.passportLabel.text().startswith("gate 1: native gate")
    assert panel.ui.faithfulnessLabel.text().startswith("The model 'click_model' is not installed here")
    assert not panel.ui.recordButton.isEnabled()
    assert panel.ui.recordButton.toolTip().startswith("No model is installed")
    panel.host.press(panel.ui.restoreLayersButton)
    assert layers(composite) == [("PET", 0.1), ("dose", 0.45)]


def _import(panel: Panel, path: Any, tmp_path: Any) -> None:
    """Read a saved scene into the open one, as File > Add data does."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    (scene,) = tmp_path.rglob("*.mrml")
    slicer.mrmlScene.SetURL(str(scene))
    slicer.mrmlScene.SetRootDirectory(str(scene.parent))
    assert slicer.mrmlScene.Import()
    panel.host.process_events()
