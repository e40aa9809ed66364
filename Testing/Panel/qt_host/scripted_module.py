"""The four base classes of a scripted module and the translation functions, as far as a panel relies on them.

Written from the behaviour documented for Slicer's `ScriptedLoadableModule`: which attributes are there, which
hooks are called when.
"""

from __future__ import annotations

import importlib
import os
import types
import unittest
from pathlib import Path
from typing import Any

from PySide6 import QtGui


def translate(context: str, text: str) -> str:
    return text


def tr(text: str) -> str:
    return text


class ScriptedLoadableModule:
    """Metadata of a module. `parent` carries title, categories, dependencies, contributors, icon and path."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        for extension in (".svg", ".png"):
            icon = Path(parent.path).parent / "Resources" / "Icons" / (self.moduleName + extension)
            if icon.is_file():
                parent.icon = QtGui.QIcon(str(icon))
                break

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.parent.path), "Resources", name)

    def runTest(self, **options: Any) -> None:
        case = getattr(importlib.import_module(type(self).__module__), self.moduleName + "Test")()
        case.runTest(**options)


class ScriptedLoadableModuleWidget:
    """Base of a panel: `parent` is the widget to fill, `layout` its layout."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name: str) -> str:
        import slicer

        module = getattr(slicer.modules, self.moduleName.lower())
        return os.path.join(os.path.dirname(module.path), "Resources", name)

    def setup(self) -> None:
        """Slicer adds its developer section here."""

    def cleanup(self) -> None:
        """Called before the widget is destroyed, and on reload."""

    def onReload(self) -> None:
        import slicer

        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """Base of a logic: gives the module's singleton parameter node."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        import slicer

        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(scene.GenerateUniqueName(self.moduleName))
            node = scene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of a self test: `runTest` runs every method whose name contains "test"."""

    def __init__(self, method: str = "runTest") -> None:
        super().__init__(method)
        self.messageDelay = 0

    def delayDisplay(self, message: str, milliseconds: int = 0) -> None:
        """Slicer shows the message for a moment; here nobody looks."""

    def runTest(self, **options: Any) -> None:
        for name in sorted(name for name in dir(type(self)) if name.startswith("test")):
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.tearDown()


def as_modules() -> dict[str, types.ModuleType]:
    """`slicer.ScriptedLoadableModule` and `slicer.i18n`, ready for sys.modules."""
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    for one in classes:
        setattr(base, one.__name__, one)
    base.__all__ = [one.__name__ for one in classes]  # type: ignore[attr-defined]
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = tr  # type: ignore[attr-defined]
    i18n.translate = translate  # type: ignore[attr-defined]
    return {"slicer.ScriptedLoadableModule": base, "slicer.i18n": i18n}
