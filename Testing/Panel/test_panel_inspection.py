"""The section "See why": choosing, recording and showing maps, by pressing buttons. The engine is in memory."""

from __future__ import annotations

from typing import Any

import pytest
import slicer
from panel_support import BESIDE, INSIDE, Panel
from why_support import layers, recorded, tick, ticks, with_volume_model

from LKSegmentLib.engine.results import InspectResult
from LKSegmentLib.scene import map_nodes

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


def test_what_is_still_arriving_does_not_come_once_all_was_removed(panel: Panel) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    tick(panel, 2)
    panel.record()
    inspection = panel.session.inspection
    found = map_nodes.map_of(inspection.maps()[0])
    inspection.take(InspectResult(None, [found]), panel.session.state.input_volume)
    assert inspection.is_arriving
    panel.host.press(panel.ui.removeMapsButton)
    panel.settle()
    assert not inspection.is_arriving and not inspection.maps()


# Two at a time ------------------------------------------------------------------------------------------------


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
