"""Load a .ui file with the stand-ins in place of Slicer's widgets, and make its connections."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PySide6 import QtCore, QtUiTools, QtWidgets

from qt_host.ctk_widgets import ctkCollapsibleButton, ctkPathLineEdit, ctkSliderWidget
from qt_host.mrml_widgets import qMRMLNodeComboBox, qMRMLWidget
from qt_host.strict import lenient

CUSTOM_WIDGETS = (ctkCollapsibleButton, ctkPathLineEdit, ctkSliderWidget, qMRMLNodeComboBox, qMRMLWidget)


def load_ui(path: str) -> QtWidgets.QWidget:
    """The widget a .ui file describes. A class, property, signal or slot that does not exist is an error."""
    tree = ElementTree.parse(path)
    connections = tree.find("connections")
    wiring = []
    if connections is not None:
        for connection in connections:
            wiring.append([connection.findtext(part, "") for part in ("sender", "signal", "receiver", "slot")])
        # Qt's loader knows no type vtkMRMLScene*: the connections are made below.
        tree.getroot().remove(connections)
    known = {custom.__name__ for custom in CUSTOM_WIDGETS} | set(QtUiTools.QUiLoader().availableWidgets())
    for widget in tree.iter("widget"):
        if widget.attrib["class"] not in known:
            raise RuntimeError(f"{Path(path).name} uses {widget.attrib['class']}, for which there is no stand-in")
    choices = _taken_out_enums(tree.getroot())
    loader = QtUiTools.QUiLoader()
    for custom in CUSTOM_WIDGETS:
        loader.registerCustomWidget(custom)
    buffer = QtCore.QBuffer()
    buffer.setData(ElementTree.tostring(tree.getroot()))
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    with lenient():
        root = loader.load(buffer)
    if root is None:
        raise RuntimeError(f"{path} could not be loaded: {loader.errorString()}")
    for name, setter, value in choices:
        getattr(_named(root, name), setter)(value)
    for sender, signal, receiver, slot in wiring:
        source, target = _named(root, sender), _named(root, receiver)
        getattr(source, signal.split("(")[0]).connect(getattr(target, slot.split("(")[0]))
    return root


def _taken_out_enums(root: ElementTree.Element) -> list[tuple[str, str, object]]:
    """(widget, setter, value) of the stand-ins' enum properties, which Qt's loader cannot read of classes in Python."""
    stand_ins = {custom.__name__ for custom in CUSTOM_WIDGETS}
    found: list[tuple[str, str, object]] = []
    for widget in root.iter("widget"):
        for choice in widget.findall("property") if widget.attrib["class"] in stand_ins else []:
            text = choice.findtext("enum")
            if text:
                owner, value = text.split("::")
                name = choice.attrib["name"]
                setter = f"set{name[0].upper()}{name[1:]}"
                found.append((widget.attrib["name"], setter, getattr(getattr(QtWidgets, owner), value)))
                widget.remove(choice)
    return found


def _named(root: QtWidgets.QWidget, name: str) -> QtWidgets.QWidget:
    found = root if root.objectName() == name else root.findChild(QtWidgets.QWidget, name)
    if found is None:
        raise RuntimeError(f"the .ui file connects '{name}', but no widget has this name")
    return found


class Children:
    """The named widgets of a .ui file as attributes, as slicer.util.childWidgetVariables gives them."""


def child_widget_variables(root: QtWidgets.QWidget) -> Children:
    """Every named object below `root` as an attribute of one plain object."""
    children = Children()
    for child in root.findChildren(QtCore.QObject):
        if child.objectName():
            setattr(children, child.objectName(), child)
    return children
