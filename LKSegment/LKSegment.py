"""LKSegment in 3D Slicer: the module's metadata, its panel, the logic between scene and engine, and a self test.

Thin on purpose: what can be decided without Qt is decided in `LKSegmentLib`. The panel is written in the common
subset of PythonQt and PySide (docs/panel.md), so that its buttons can be pressed in tests without Slicer.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "LKSegmentLib" / "__init__.py").is_file() and str(_CHECKOUT) not in sys.path:
    # Developer mode: Slicer knows this folder only. In an installed extension the library lies beside this file.
    sys.path.append(str(_CHECKOUT))

from LKSegmentLib.errors import LKSegmentError  # noqa: E402 (after the line above)

POLL_MILLISECONDS = 30
DEBOUNCE_MILLISECONDS = 150
SLICE_MILLISECONDS = 50
SELF_TEST_SECONDS = 180.0
DEVICE_SETTING = "LKSegment/Device"
INTERPRETER_SETTING = "LKSegment/WorkerPython"
TOOLS = {
    "positivePointButton": ("positive", "PointInclude"),
    "negativePointButton": ("negative", "PointExclude"),
    "boxButton": ("box", "Box"),
    "lassoButton": ("lasso", "Lasso"),
    "scribbleButton": ("scribble", "ScribbleInclude"),
    "scribbleOutButton": ("scribble out", "ScribbleExclude"),
}
"""The button, the tool of the mouse that `PanelSession.take_tool` knows, and the icon."""
BUTTONS = {
    **dict.fromkeys(TOOLS, "place"),
    "undoPointButton": "undo",
    "segmentVolumeButton": "segment",
    "acceptButton": "accept",
    "cancelButton": "cancel",
    "stopButton": "stop",
    "overlayCheckBox": "overlay",
    "recordButton": "record",
    "reachButton": "reach",
    "probeButton": "probe",
    "secondMapComboBox": "second",
    "showTableButton": "table",
    "restoreLayersButton": "restore",
    "removeMapsButton": "remove",
}
"""The button, and the action that `PanelSession.why_not` knows."""


class LKSegment(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened. Runs at every start: nothing is loaded here."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "LKSegment"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups"]
        self.parent.contributors = ["The LKSegment contributors"]
        self.parent.helpText = _(
            "Segment a volume with large-kernel networks: choose a model, click on a structure, accept the result "
            "into a segment, and see over the image where the network looked. Not a medical device."
        )
        self.parent.acknowledgementText = _(
            "The code is under the Apache License 2.0. Each model names the licence of its weights and its authors."
        )


class LKSegmentLogic(ScriptedLoadableModuleLogic):
    """Gives the panel, and scripts, a `PanelSession` in the application: its scene, its worker, its undo."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        from LKSegmentLib.scene import core, panel_session

        self.interpreter = ""
        self.session = panel_session.PanelSession(
            core.application_scene(), make_engine=self.make_engine, save_state=self.save_for_undo_in_segment_editor
        )

    def make_engine(self) -> Any:
        """A client of a worker by the chosen Python; "" is Slicer's own."""
        from LKSegmentLib.engine.client import EngineClient
        from LKSegmentLib.engine.launching import changes_to

        if not self.interpreter:
            return EngineClient()
        # A Python that is not Slicer's must not see Slicer's libraries.
        return EngineClient(self.interpreter, changes_to(slicer.util.startupEnvironment()))

    def save_for_undo_in_segment_editor(self, segmentation_node: Any) -> bool:
        """Save the state in the user's Segment Editor, so that its Undo takes the write back.

        False when the editor does not edit this segmentation: then the writer keeps an undo step of its own.
        """
        settings = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if settings is None or settings.GetSegmentationNode() is not segmentation_node:
            return False
        if not hasattr(slicer.modules, "segmenteditor"):
            return False
        slicer.modules.segmenteditor.widgetRepresentation().self().editor.saveStateForUndo()
        return True


class LKSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: shows what the session says, and hands on what is pressed."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: LKSegmentLogic | None = None
        self.session: Any = None
        self._stop_watching_state: Callable[[], None] | None = None
        self._watched: list[Any] = []
        self._tooltips: dict[str, str] = {}
        self._problem = ""  # what the state of the scene names that is not there, until something else is chosen

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/LKSegment.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        self.logic = LKSegmentLogic()
        self.session = self.logic.session
        self._setup_controls()
        self.poll_timer = timer(POLL_MILLISECONDS, self.on_poll, repeats=True)
        self.request_timer = timer(DEBOUNCE_MILLISECONDS, self.on_request)
        self.slice_timer = timer(SLICE_MILLISECONDS, lambda: self.session.inspection.follow_views())
        # Not at once: when it tells that a drawing has ended, Slicer is still at work with it.
        self.drawing_timer = timer(0, lambda: self._attempt(self.session.pointing.finish_drawing))
        panel.setMRMLScene(slicer.mrmlScene)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.on_scene_start_close)
        self.addObserver(scene, scene.EndCloseEvent, self.on_scene_replaced)
        self.addObserver(scene, scene.EndImportEvent, self.on_scene_loaded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.on_node_leaving)
        self.initialize()
        self._connect_controls()

    def _setup_controls(self) -> None:
        settings, ui = slicer.app.userSettings(), self.ui
        self.session.device = str(settings.value(DEVICE_SETTING, "auto") or "auto")
        self.logic.interpreter = str(settings.value(INTERPRETER_SETTING, "") or "")
        ui.interpreterPathEdit.setCurrentPath(self.logic.interpreter)
        devices = [("auto", _("Automatic")), ("cpu", _("CPU"))]
        devices += [("cuda", _("NVIDIA GPU (CUDA)")), ("mps", _("Apple GPU (MPS)"))]
        for device, title in devices:
            ui.deviceComboBox.addItem(title, device)
        if ui.deviceComboBox.findData(self.session.device) < 0:
            ui.deviceComboBox.addItem(self.session.device, self.session.device)  # such as cuda:1, from the settings
        ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData(self.session.device))
        ui.scaleComboBox.addItem(_("Percentiles 2 to 99.8 of this case"), "percentiles")
        ui.scaleComboBox.addItem(_("Everything the quantity can be"), "range")
        for button in BUTTONS:
            self._tooltips[button] = getattr(ui, button).property("toolTip")
        for button, (_tool, icon) in TOOLS.items():
            getattr(ui, button).setIcon(qt.QIcon(self.resourcePath(f"Icons/{icon}.svg")))

    def _connect_controls(self) -> None:
        ui, session = self.ui, self.session
        ui.inputVolumeSelector.currentNodeIDChanged.connect(self.on_input_volume)
        ui.segmentationSelector.currentNodeIDChanged.connect(self.on_segmentation)
        ui.modelComboBox.currentIndexChanged.connect(self.on_model)
        ui.deviceComboBox.currentIndexChanged.connect(self.on_device)
        ui.segmentComboBox.currentIndexChanged.connect(self.on_segment)
        for combo in (ui.overlayMapComboBox, ui.secondMapComboBox, ui.scaleComboBox):
            combo.currentIndexChanged.connect(self.on_overlay)
        for slider in (ui.overlayOpacitySlider, ui.overlayHiddenSlider, ui.secondOpacitySlider, ui.secondHiddenSlider):
            slider.valueChanged.connect(self.on_overlay)
        ui.overlayCheckBox.toggled.connect(self.on_overlay)
        ui.whyCollapsibleButton.contentsCollapsed.connect(self.show_all)
        ui.passportButton.toggled.connect(self.show_all)
        ui.mapsListWidget.itemChanged.connect(self.on_choice)
        ui.mapNameEdit.editingFinished.connect(self.on_typed)
        ui.interpreterPathEdit.currentPathChanged.connect(self.on_interpreter)
        for name, (tool, _icon) in TOOLS.items():
            getattr(ui, name).clicked.connect(self._pressed(lambda tool=tool: session.take_tool(tool)))
        for button, action in (
            (ui.undoPointButton, session.undo_point),
            (ui.segmentVolumeButton, session.request_segmentation),
            (ui.acceptButton, session.accept),
            (ui.cancelButton, session.cancel),
            (ui.stopButton, session.stop),
            (ui.recordButton, session.request_maps),
            (ui.reachButton, session.request_reach),
            (ui.probeButton, self.on_probe),
            (ui.showTableButton, self.on_show_table),
            (ui.restoreLayersButton, session.inspection.restore_layers),
            (ui.removeMapsButton, self.on_remove_maps),
            (ui.restartWorkerButton, session.restart_worker),
        ):
            button.clicked.connect(self._pressed(action))

    def _pressed(self, action: Callable[[], Any]) -> Callable[..., None]:
        """What a button is connected to: its signal's arguments are left out."""
        return lambda *_args: self._attempt(action)

    # lifecycle --------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Follow the state of the scene that is open now."""
        session = self.session
        if self._stop_watching_state is not None:
            self._stop_watching_state()
        session.refresh_models()
        session.choose_default_volume()
        if session.state.input_volume is None:
            session.state.input_volume = self.ui.inputVolumeSelector.currentNode()
        self._stop_watching_state = session.state.on_change(self.show_all)
        self._problem = next(iter(session.state.problems(session.models or None)), "")
        self.show_all()

    def enter(self) -> None:
        self.initialize()
        self._attempt(self.session.inspection.enter)

    def exit(self) -> None:
        self._attempt(self.session.leave)

    def cleanup(self) -> None:
        """Called when the application quits and when the module is reloaded: nothing may outlive this."""
        for one in (self.poll_timer, self.request_timer, self.slice_timer, self.drawing_timer):
            one.stop()
        self.removeObservers()
        if self._stop_watching_state is not None:
            self._stop_watching_state()
            self._stop_watching_state = None
        with contextlib.suppress(LKSegmentError):  # the scene may be half gone
            self.session.leave()
        self.session.close()

    def onReload(self) -> None:
        """Reload the library too, not this file alone."""
        for name in [name for name in sys.modules if name.split(".")[0] == "LKSegmentLib"]:
            del sys.modules[name]
        super().onReload()

    def on_scene_start_close(self, _caller: Any, _event: Any) -> None:
        self.request_timer.stop()
        self.session.on_scene_closing()

    def on_scene_replaced(self, _caller: Any, _event: Any) -> None:
        self.initialize()

    def on_scene_loaded(self, _caller: Any, _event: Any) -> None:
        self.session.inspection.on_scene_loaded()
        self.initialize()
        self._attempt(self.session.inspection.update)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def on_node_leaving(self, _caller: Any, _event: Any, node: Any) -> None:
        if not slicer.mrmlScene.IsClosing():
            self.session.on_node_leaving(node)
            self.show_all()

    def _watch_scene_nodes(self) -> None:
        """Observe the nodes that the state names now, what is being drawn, the mouse, and the slice views."""
        state, points, views = self.session.state, slicer.vtkMRMLMarkupsNode, self.session.inspection.slice_nodes
        placed = (points.PointPositionDefinedEvent, points.PointRemovedEvent, points.PointEndInteractionEvent)
        segments = [getattr(slicer.vtkSegmentation, f"Segment{change}") for change in ("Added", "Removed", "Modified")]
        mouse_mode = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
        selection = slicer.mrmlScene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")
        wanted = [
            (state.positive_points, placed, self.on_points),
            (state.negative_points, placed, self.on_points),
            (state.target_segmentation, segments, self.on_segments),
            (self.session.pointing.drawing.node, [points.PointPositionDefinedEvent], self.show_all),
            (mouse_mode, [slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent], self.show_all),
            (selection, [slicer.vtkMRMLSelectionNode.ActivePlaceNodeIDChangedEvent], self.show_all),
        ]
        for node in (*views(), *views("vtkMRMLSliceCompositeNode")):
            wanted.append((node, [vtk.vtkCommand.ModifiedEvent], self.on_slice))
        nodes = [node for node, _events, _method in wanted]
        if nodes != self._watched:
            for method in (self.on_points, self.on_segments, self.show_all, self.on_slice):
                self.removeObservers(method)
            for node, events, method in wanted:
                for event in events if node is not None else ():
                    self.addObserver(node, event, method)
            self._watched = nodes

    # what happens -----------------------------------------------------------------------------------------

    def _attempt(self, action: Callable[[], Any]) -> None:
        """Do it; what the user can mend is said in the status line."""
        try:
            action()
        except LKSegmentError as error:
            self.session.status = str(error)
        self.show_all()

    def on_poll(self) -> None:
        if self.session.poll():
            self.show_all()
        elif not self.session.is_busy:
            self.poll_timer.stop()

    def on_request(self) -> None:
        if self.session.needs_mask():
            self._attempt(self.session.request_mask)

    def on_points(self, _caller: Any, _event: Any) -> None:
        self.request_timer.stop()  # several points in quick succession are one request
        self.session.follow_points()
        self.show_all()

    def on_segments(self, _caller: Any, _event: Any) -> None:
        self._show_segments()

    def on_slice(self, _caller: Any, _event: Any) -> None:
        if not self.slice_timer.isActive():  # while somebody scrolls, now and then is enough
            self.slice_timer.start()

    def on_input_volume(self, *_args: Any) -> None:
        self._problem = ""
        self.session.state.input_volume = self.ui.inputVolumeSelector.currentNode()

    def on_segmentation(self, *_args: Any) -> None:
        self._problem = ""
        node = self.ui.segmentationSelector.currentNode()
        if node is not self.session.state.target_segmentation:
            with self.session.state.together():
                self.session.state.target_segmentation = node
                self.session.state.segment_id = ""

    def on_segment(self, *_args: Any) -> None:
        self.session.state.segment_id = current_data(self.ui.segmentComboBox)

    def on_model(self, *_args: Any) -> None:
        self._problem = ""
        self.session.state.model = current_data(self.ui.modelComboBox)

    def on_device(self, *_args: Any) -> None:
        self.session.device = current_data(self.ui.deviceComboBox)
        slicer.app.userSettings().setValue(DEVICE_SETTING, self.session.device)
        self.show_all()

    def on_interpreter(self, *_args: Any) -> None:
        self.logic.interpreter = str(self.ui.interpreterPathEdit.property("currentPath")).strip()
        slicer.app.userSettings().setValue(INTERPRETER_SETTING, self.logic.interpreter)
        self.session.status = _("Restart the worker to use this Python.")
        self.show_all()

    def on_overlay(self, *_args: Any) -> None:
        state, ui = self.session.state, self.ui
        with state.together():
            self.session.inspection.choose_overlays(
                current_data(ui.overlayMapComboBox), current_data(ui.secondMapComboBox)
            )
            state.overlay_visible = ui.overlayCheckBox.isChecked()
            state.overlay_opacity = float(ui.overlayOpacitySlider.property("value"))
            state.overlay_hidden = float(ui.overlayHiddenSlider.property("value"))
            state.second_opacity = float(ui.secondOpacitySlider.property("value"))
            state.second_hidden = float(ui.secondHiddenSlider.property("value"))
            state.overlay_scale = current_data(ui.scaleComboBox)
        self._attempt(self.session.inspection.resume)

    def on_choice(self, *_args: Any) -> None:
        widget = self.ui.mapsListWidget
        items = [widget.item(row) for row in range(widget.property("count"))]
        ticked = [str(item.data(qt.Qt.UserRole)) for item in items if item.checkState() == qt.Qt.Checked]
        self.session.state.choose_maps(self.session.state.model, ticked)

    def on_typed(self, *_args: Any) -> None:
        self.session.inspection.typed = str(self.ui.mapNameEdit.property("text"))
        self.show_all()

    def on_probe(self) -> None:
        found = self.session.inspection.probe()
        names, values, units = found.column("map"), found.column("value"), found.column("unit")
        rows = zip(names, values, units, strict=True)
        lines = [f"{name}: {'-' if value is None else f'{value:.4g}'} ({unit})" for name, value, unit in rows]
        self.ui.probeLabel.setText("\n".join([found.name, *lines]))

    def on_show_table(self) -> None:
        self.session.inspection.show_table(current_data(self.ui.tableComboBox))

    def on_remove_maps(self) -> None:
        self.session.status = self.session.inspection.remove_recorded()
        self.ui.probeLabel.setText("")

    # what is shown ----------------------------------------------------------------------------------------

    def show_all(self, *_args: Any) -> None:
        """Bring every control in line with the session; start what the change asks for, whoever made it."""
        session, ui = self.session, self.ui
        self._watch_scene_nodes()
        select_node(ui.inputVolumeSelector, session.state.input_volume)
        select_node(ui.segmentationSelector, session.state.target_segmentation)
        models = [(entry.title or name, name) for name, entry in session.models.items()]
        fill(ui.modelComboBox, models, session.state.model)
        ui.modelComboBox.setToolTip(about_model(session.models.get(session.state.model)))
        self._show_inspection()
        self._show_segments()
        for name, (tool, _icon) in TOOLS.items():
            set_quietly(getattr(ui, name), "setChecked", session.pointing.tool == tool)
        for name, action in BUTTONS.items():
            button, missing = getattr(ui, name), session.why_not(action)
            button.setEnabled(not missing)
            button.setToolTip(missing or self._tooltips[name])
        job = session.job
        ui.progressBar.setValue(round(100 * job.progress) if job is not None else 0)
        ui.progressBar.setFormat(f"{job.stage} %p%" if job is not None else "")
        facts = session.worker_facts
        ui.workerLabel.setText(
            _("Python {python}, torch {torch}, process {process}").format(**{**facts, "torch": facts["torch"] or "-"})
            if facts
            else _("not running")
        )
        ui.statusLabel.setText(session.pointing.advice or session.status or self._problem or hint(session))
        if session.is_busy and not self.poll_timer.isActive():
            self.poll_timer.start()
        if session.needs_mask() and not self.request_timer.isActive():
            self.request_timer.start()
        if session.pointing.drawing.is_over:
            self.drawing_timer.start()

    def _show_inspection(self) -> None:
        """The section "See why"; the worker is asked what the model shows once somebody looks there."""
        session, ui, state, inspection = self.session, self.ui, self.session.state, self.session.inspection
        if not ui.whyCollapsibleButton.property("collapsed") and session.model_kind:
            inspection.ask(state.model)
        names = [inspection.name_of(node) for node in inspection.maps()]
        first, second = inspection.shown_names()
        fill(ui.overlayMapComboBox, [(name, name) for name in names], first)
        fill(ui.secondMapComboBox, [(_("None"), ""), *((name, name) for name in names)], second)
        fill(ui.tableComboBox, *inspection.table_choice(current_data(ui.tableComboBox)))
        set_quietly(ui.scaleComboBox, "setCurrentIndex", ui.scaleComboBox.findData(state.overlay_scale))
        set_quietly(ui.overlayCheckBox, "setChecked", state.overlay_visible)
        set_quietly(ui.overlayOpacitySlider, "setValue", state.overlay_opacity)
        set_quietly(ui.overlayHiddenSlider, "setValue", state.overlay_hidden)
        set_quietly(ui.secondOpacitySlider, "setValue", state.second_opacity)
        set_quietly(ui.secondHiddenSlider, "setValue", state.second_hidden)
        tick(ui.mapsListWidget, inspection.exposures(state.model), inspection.chosen(state.model) or [])
        ui.passportLabel.setText(inspection.passport_line())
        ui.faithfulnessLabel.setText(inspection.faithfulness(session.models))
        ui.passportDetailsLabel.setText(inspection.passport_details() if ui.passportButton.isChecked() else "")

    def _show_segments(self) -> None:
        state = self.session.state
        entries = [(_("New segment"), "")]
        if state.target_segmentation is not None:
            segmentation = state.target_segmentation.GetSegmentation()
            for index in range(segmentation.GetNumberOfSegments()):
                entries.append((segmentation.GetNthSegment(index).GetName(), segmentation.GetNthSegmentID(index)))
        if state.segment_id not in [identifier for _name, identifier in entries]:
            state.segment_id = ""  # deleted: the result goes into a new one, which the panel shows
        fill(self.ui.segmentComboBox, entries, state.segment_id)


def hint(session: Any) -> str:
    """What to do next, while nothing else is to be said."""
    if session.model_kind == "volume":
        return session.why_not("segment") or _("Press 'Segment whole volume'.")
    missing = session.why_not("place")
    if missing or session.has_preview:
        return missing
    if session.points():
        return _("This scene has points: press 'Include' to segment what they point at.")
    return _("Press 'Include' and click on the structure in a slice view.")


def timer(milliseconds: int, action: Callable[[], Any], repeats: bool = False) -> Any:
    """A QTimer that is not started yet."""
    made = qt.QTimer()
    made.setSingleShot(not repeats)
    made.setInterval(milliseconds)
    made.timeout.connect(action)
    return made


def about_model(entry: Any) -> str:
    """What the chosen model is, for its tooltip."""
    if entry is None:
        return _("The network that segments.")
    return (
        _("{summary} Licence of the weights: {licence}.").format(summary=entry.summary, licence=entry.licence).strip()
    )


def current_data(combo: Any) -> str:
    """The data of the chosen entry of a QComboBox; "" when none is chosen."""
    return str(combo.itemData(combo.property("currentIndex")) or "")


def fill(combo: Any, entries: list[tuple[str, str]], current: str) -> None:
    """Give a QComboBox these (text, data) entries and choose one, without a signal."""
    blocked = combo.blockSignals(True)
    count = combo.property("count")
    if [(combo.itemText(row), combo.itemData(row)) for row in range(count)] != entries:
        combo.clear()
        for text, data in entries:
            combo.addItem(text, data)
    combo.setCurrentIndex(combo.findData(current))
    combo.blockSignals(blocked)


def tick(widget: Any, exposures: list[Any], chosen: list[str]) -> None:
    """Give a QListWidget these things that a model can show, with a box each, and tick the chosen ones."""
    blocked = widget.blockSignals(True)
    rows = range(widget.property("count"))
    if [str(widget.item(row).data(qt.Qt.UserRole)) for row in rows] != [one.name for one in exposures]:
        widget.clear()
        for row, one in enumerate(exposures):
            widget.addItem(one.words)
            widget.item(row).setData(qt.Qt.UserRole, one.name)
            widget.item(row).setToolTip(one.about)
    for row, one in enumerate(exposures):
        widget.item(row).setCheckState(qt.Qt.Checked if one.name in chosen else qt.Qt.Unchecked)
    widget.blockSignals(blocked)


def select_node(selector: Any, node: Any) -> None:
    """Choose a node in a qMRMLNodeComboBox, without a signal; a hidden one or None chooses nothing."""
    if selector.currentNode() is not node:
        blocked = selector.blockSignals(True)
        selector.setCurrentNodeID(node.GetID() if node is not None else "")
        selector.blockSignals(blocked)


def set_quietly(widget: Any, setter: str, value: Any) -> None:
    """Call a setter without the widget telling that it changed."""
    blocked = widget.blockSignals(True)
    getattr(widget, setter)(value)
    widget.blockSignals(blocked)


class LKSegmentTest(ScriptedLoadableModuleTest):
    """Run by Slicer (CTest, or "Reload and Test"): the panel opens, clicks become a segment, and no process stays."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def test_panel_opens_without_torch(self) -> None:
        was_there = "torch" in sys.modules
        widget = slicer.util.getModuleWidget("LKSegment")
        self.assertIsNotNone(widget.ui.positivePointButton)
        self.assertEqual("torch" in sys.modules, was_there)
        self.assertEqual(widget.session.why_not("place"), _("Choose an input volume first."))

    def test_click_becomes_a_segment(self) -> None:
        """The whole way with the built-in model; skipped where it is not installed or the worker has no torch."""
        import numpy as np

        from LKSegmentLib.scene import prompts

        session = LKSegmentLogic().session
        session.refresh_models()
        if session.models.get("lk_click") is None:
            self.skipTest("the model lk_click is not installed")
        k, j, i = np.indices((48, 48, 48))
        ball = ((k - 24) ** 2 + (j - 24) ** 2 + (i - 24) ** 2 < 144) * 100.0
        session.state.input_volume = slicer.util.addVolumeFromArray(ball.astype(np.float32))
        session.state.model = "lk_click"
        try:
            session.take_tool("positive")
            prompts.add_point(session.state.positive_points, (24.0, 24.0, 24.0), 1)
            session.take_tool("box")
            for corner in ((12.0, 12.0, 12.0), (36.0, 36.0, 36.0)):
                session.pointing.drawing.node.AddControlPointWorld(corner)
            session.pointing.finish_drawing()
            self.assertEqual([point.with_next for point in session.points()], [False] + 6 * [True] + [False])
            session.request_mask()
            deadline = time.monotonic() + SELF_TEST_SECONDS
            while session.is_busy:
                if time.monotonic() > deadline:
                    self.fail(f"The worker gave no answer within {SELF_TEST_SECONDS:g} s: {session.status}")
                session.poll()
                slicer.app.processEvents()
            if not session.worker_facts.get("torch"):
                self.skipTest("the worker's Python has no torch: " + session.status)
            self.assertTrue(session.has_preview, session.status)
            session.accept()
        finally:
            session.pointing.leave()
            session.close()
        segmentation = session.state.target_segmentation.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), 1)
        self.assertFalse(session.is_busy)
