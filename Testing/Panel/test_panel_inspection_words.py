"""The section "See why": passports, the crosshair, tables, and whatever goes wrong. The engine is in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import slicer
from panel_support import BESIDE, INSIDE, Panel
from why_support import layers, recorded, ticks, with_volume_model

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
