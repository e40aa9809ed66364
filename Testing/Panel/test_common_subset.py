"""LKSegment.py keeps to what PythonQt (in Slicer) and PySide (in these tests) both understand.

Where the two differ, one of them does something silently wrong; the rules are in docs/panel.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from panel_support import MODULE_FILE
from PySide6 import QtCore, QtWidgets
from qt_host.ui_files import CUSTOM_WIDGETS

QT_CLASSES = (
    QtCore.QTimer,
    QtWidgets.QCheckBox,
    QtWidgets.QComboBox,
    QtWidgets.QLabel,
    QtWidgets.QProgressBar,
    QtWidgets.QPushButton,
    *CUSTOM_WIDGETS,
)


def property_names() -> set[str]:
    """Names that are a value in PythonQt and a method in PySide. Getters that begin with "is" exist in both."""
    names = set()
    for qt_class in QT_CLASSES:
        meta = qt_class.staticMetaObject
        names |= {meta.property(index).name() for index in range(meta.propertyCount())}
    return names - {"isEntered"}


def mistakes(source: str) -> Iterator[str]:
    names = property_names()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method, where = node.func.attr, f"line {node.lineno}: {ast.unparse(node)}"
            if method in names and not node.args and not node.keywords:
                yield f"{where}: a property in PythonQt; read it with property({method!r})"
            if method in ("connect", "disconnect") and any(isinstance(arg, ast.Constant) for arg in node.args):
                yield f"{where}: connect the signal itself, not its signature"
            of_qt = ast.unparse(node.func.value) == "qt"
            if of_qt and node.keywords:
                yield f"{where}: PythonQt takes no keyword arguments"
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value).split(".")[:2] in (
                ["ui"],
                ["self", "ui"],
            ):
                yield f"line {node.lineno}: {ast.unparse(target)} is assigned; call the setter"
        if isinstance(node, ast.With) and "QSignalBlocker" in ast.unparse(node):
            yield f"line {node.lineno}: PythonQt's QSignalBlocker is no context manager"


def test_the_panel_keeps_to_the_common_subset() -> None:
    assert not list(mistakes(MODULE_FILE.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        "self.ui.statusLabel.text()",
        "combo.currentIndex()",
        "slider.value()",
        "self.ui.button.enabled = False",
        "ui.button.connect('clicked()', f)",
        "qt.QPushButton(text='x')",
        "with qt.QSignalBlocker(w):\n    pass",
    ],
)
def test_a_mistake_is_noticed(line: str) -> None:
    assert list(mistakes(line))


def test_visible_text_is_translatable() -> None:
    """Literals only inside _(): what is put together at run time cannot be looked up."""
    library = MODULE_FILE.parents[1] / "LKSegmentLib" / "scene" / "panel_session.py"
    for path in (MODULE_FILE, library):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setText":
                plain = isinstance(node.args[0], ast.Constant) and node.args[0].value
                assert not plain, f"{path.name}:{node.lineno} shows text past _()"
