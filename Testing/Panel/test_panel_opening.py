"""Opening the panel, what belongs to this computer, and ending. The engine is in memory: wiring only."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import slicer
from panel_support import INSIDE, Panel

# Opening -------------------------------------------------------------------------------------------------------


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


def test_a_long_name_in_a_selector_leaves_room_for_its_label(
    open_panel: Callable[[], Panel], add_volume: Callable[..., Any]
) -> None:
    """As the name of a map is, which is a volume too: a selector as wide as its longest entry hid "Input volume:"."""
    add_volume("CT abdomen LK attention (channel closest to the mask), window disagreement, and more words than fit")
    panel = open_panel()
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.module.parent.setFixedWidth(360)
    panel.module.parent.show()
    panel.host.process_events()
    from PySide6 import QtWidgets

    labels = [one for one in panel.module.parent.findChildren(QtWidgets.QLabel) if one.text().endswith(":")]
    shown = [one for one in labels if one.isVisible()]
    assert len(shown) >= 12
    assert [one.text() for one in shown if one.width() < one.sizeHint().width()] == []


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


# This computer -------------------------------------------------------------------------------------------------


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


# Ending --------------------------------------------------------------------------------------------------------


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
