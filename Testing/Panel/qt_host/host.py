"""The host: a Qt application without a display, a real MRML scene, and `slicer.app` as a panel knows it."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6 import QtCore, QtGui, QtWidgets

from qt_host.ctk_widgets import ctkCollapsibleButton, ctkPathLineEdit, ctkSliderWidget
from qt_host.mrml_widgets import qMRMLNodeComboBox, qMRMLWidget
from qt_host.scripted_module import as_modules
from qt_host.strict import Complaints, forbid_attribute_setting, keep_singletons_alive, qt_module
from qt_host.ui_files import child_widget_variables, load_ui


class Application:
    """What panels use of `slicer.app` (qSlicerApplication), without a main window."""

    def __init__(self, settings_file: Path, application_logic: Any) -> None:
        self._settings = QtCore.QSettings(str(settings_file), QtCore.QSettings.Format.IniFormat)
        self._application_logic = application_logic
        self.startup_slots: list[Callable[[], None]] = []

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    def applicationLogic(self) -> Any:
        return self._application_logic

    def layoutManager(self) -> None:
        """Slicer has none without a main window."""

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def testingEnabled(self) -> bool:
        return True

    def topLevelWidgets(self) -> list[QtWidgets.QWidget]:
        return QtWidgets.QApplication.topLevelWidgets()

    def connect(self, signal: str, slot: Callable[[], None]) -> None:
        if signal != "startupCompleted()":
            raise ValueError(f"slicer.app has no signal {signal} in this host")
        self.startup_slots.append(slot)


class OpenModule:
    """A module as the application holds it: metadata, Python module, panel and the panel's parent widget."""

    def __init__(self, path: Path, prepare: Callable[[OpenModule], None] | None = None) -> None:
        self.path = path
        self._prepare = prepare
        self.name = path.stem
        self.python: Any = None
        self.metadata: Any = None
        self.widget: Any = None
        self.parent: qMRMLWidget | None = None

    def load(self) -> None:
        """What the application does at start: import the file and read the metadata."""
        spec = importlib.util.spec_from_file_location(self.name, self.path)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{self.path} cannot be imported")
        self.python = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = self.python
        spec.loader.exec_module(self.python)
        about = types.SimpleNamespace(
            path=str(self.path), title="", categories=[], dependencies=[], contributors=[], helpText="",
            acknowledgementText="", icon=None,
        )
        self.metadata = getattr(self.python, self.name)(about).parent
        representation = types.SimpleNamespace(
            path=str(self.path), widgetRepresentation=lambda: self.parent, name=self.name
        )
        setattr(slicer.modules, self.name.lower(), representation)
        if self._prepare is not None:
            self._prepare(self)

    def open(self) -> None:
        """What the application does when the module is chosen for the first time."""
        self.parent = qMRMLWidget()
        QtWidgets.QVBoxLayout(self.parent)
        self.parent.setMRMLScene(slicer.mrmlScene)
        self._fill()

    def _fill(self) -> None:
        self.widget = getattr(self.python, self.name + "Widget")(self.parent)
        setattr(slicer.modules, self.name + "Widget", self.widget)
        self.widget.setup()
        self.enter()

    def enter(self) -> None:
        assert self.parent is not None
        self.parent._is_entered = True
        self.widget.enter()

    def exit(self) -> None:
        assert self.parent is not None
        self.parent._is_entered = False
        self.widget.exit()

    def reload(self) -> None:
        """What `slicer.util.reloadScriptedModule` does: new code first, then the old panel's cleanup."""
        assert self.parent is not None
        self.load()
        self.widget.cleanup()
        for child in self.parent.findChildren(QtWidgets.QWidget):
            child.hide()
        self._let_go_of_the_scene()
        layout = self.parent.layout()
        while layout is not None and layout.count():
            layout.takeAt(0)
        self._fill()

    def _let_go_of_the_scene(self) -> None:
        """Slicer's selectors stop watching the scene when they are destroyed; Python observers must be told."""
        assert self.parent is not None
        for selector in self.parent.findChildren(qMRMLNodeComboBox):
            selector.setMRMLScene(None)

    def close(self) -> None:
        """What the application does when it quits."""
        if self.widget is not None:
            self.widget.cleanup()
            self.widget = None
        if self.parent is not None:
            self._let_go_of_the_scene()
            self.parent.deleteLater()
            self.parent = None


class QtHost:
    """Start with `start`, open module files with `open`, end with `stop`. One at a time in a process.

    Attributes:
        complaints: sentences Qt would have swallowed (exceptions in slots, Qt warnings). A test asserts it empty.
        dialogs: (kind, text) of every message box the panel asked for.
        context, scene: the `SceneContext` and its MRML scene, which is also `slicer.mrmlScene`.
    """

    def __init__(self, settings_file: Path) -> None:
        self._settings_file = settings_file
        self._complaints = Complaints()
        self._modules: dict[str, OpenModule] = {}
        self._saved: dict[str, Any] = {}
        self.dialogs: list[tuple[str, str]] = []
        self.context: Any = None
        self.scene: Any = None

    @property
    def complaints(self) -> list[str]:
        return self._complaints.sentences

    def start(self) -> None:
        from LKSegmentLib.scene import core

        if QtWidgets.QApplication.instance() is None:
            QtWidgets.QApplication(["LKSegmentPanelHost", "-style", "fusion"])
        keep_singletons_alive()
        forbid_attribute_setting()
        self._complaints.listen()
        context = core.headless_scene()
        core.publish(context)
        self.context = context
        self.scene = context.scene
        slicer.app = Application(self._settings_file, context.application_logic)
        sys.modules["qt"] = qt_module()
        ctk = types.ModuleType("ctk")
        for widget in (ctkCollapsibleButton, ctkPathLineEdit, ctkSliderWidget):
            setattr(ctk, widget.__name__, widget)
        sys.modules["ctk"] = ctk
        slicer.qMRMLNodeComboBox = qMRMLNodeComboBox
        slicer.qMRMLWidget = qMRMLWidget
        for name, module in as_modules().items():
            sys.modules[name] = module
            setattr(slicer, name.split(".")[1], module)
        slicer.selfTests = {}
        self._replace_utilities()

    def _replace_utilities(self) -> None:
        def dialog(kind: str) -> Callable[..., None]:
            def show(text: str, *_: Any, **__: Any) -> None:
                self.dialogs.append((kind, text))

            return show

        replacements = {
            "loadUI": load_ui,
            "childWidgetVariables": child_widget_variables,
            "mainWindow": lambda: None,
            "startupEnvironment": lambda: dict(os.environ),
            "getModuleWidget": lambda name: self._modules[name].widget,
            "reloadScriptedModule": lambda name: self._modules[name].reload(),
            "errorDisplay": dialog("error"),
            "warningDisplay": dialog("warning"),
            "infoDisplay": dialog("info"),
            "messageBox": dialog("message"),
        }
        for name, replacement in replacements.items():
            self._saved[name] = getattr(slicer.util, name)
            setattr(slicer.util, name, replacement)

    def open(self, path: Path, prepare: Callable[[OpenModule], None] | None = None) -> OpenModule:
        """Load a module file and open its panel. `prepare` is called between the two, and again after a reload."""
        module = OpenModule(path, prepare)
        self._modules[module.name] = module
        module.load()
        module.open()
        return module

    def stop(self) -> None:
        for module in self._modules.values():
            module.close()
        # processEvents leaves out what was deleted later; outside of an event loop it must be asked for.
        QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
        self.process_events()
        for name, original in self._saved.items():
            setattr(slicer.util, name, original)
        for name in ("qt", "ctk", "slicer.ScriptedLoadableModule", "slicer.i18n", *self._modules):
            sys.modules.pop(name, None)
        for name in ("app", "mrmlScene", "modules", "ScriptedLoadableModule", "i18n", "selfTests"):
            if hasattr(slicer, name):
                delattr(slicer, name)
        self._complaints.stop()
        self._modules = {}

    # what a person does -----------------------------------------------------------------------------------

    def process_events(self) -> None:
        QtWidgets.QApplication.processEvents()

    def wait_until(self, condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> None:
        """Run the event loop until `condition()` holds; AssertionError after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain for {what or condition}")
            self.process_events()
            time.sleep(0.002)

    def wait(self, seconds: float) -> None:
        """Run the event loop for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process_events()
            time.sleep(0.002)

    def press(self, button: QtWidgets.QAbstractButton) -> None:
        """Click a button as a mouse would: AssertionError when it is disabled or hidden."""
        assert button.isEnabled(), f"{button.objectName()} is disabled: {button.toolTip()}"
        button.click()
        self.process_events()

    def choose(self, combo: QtWidgets.QWidget, text: str) -> None:
        """Pick the entry with this text, in a QComboBox or a node selector."""
        box = combo if isinstance(combo, QtWidgets.QComboBox) else combo.findChild(QtWidgets.QComboBox)
        assert box is not None and box.isEnabled()
        row = box.findText(text)
        assert row >= 0, f"{combo.objectName()} has no entry {text!r}, only {self.entries(combo)}"
        box.setCurrentIndex(row)
        box.activated.emit(row)
        self.process_events()

    def entries(self, combo: QtWidgets.QWidget) -> list[str]:
        box = combo if isinstance(combo, QtWidgets.QComboBox) else combo.findChild(QtWidgets.QComboBox)
        assert box is not None
        return [box.itemText(row) for row in range(box.count())]

    def grab(self, module: OpenModule, path: Path, width: int = 400) -> None:
        """Save what the panel looks like as a PNG."""
        assert module.parent is not None
        module.parent.setFixedWidth(width)
        module.parent.show()
        for _ in range(3):
            self.process_events()
            # As Slicer's scroll area does: wrapped text needs more height where the panel is narrow.
            module.parent.resize(width, module.parent.heightForWidth(width))
        pixmap: QtGui.QPixmap = module.parent.grab()
        if not pixmap.save(str(path)):
            raise OSError(f"{path} could not be written")
