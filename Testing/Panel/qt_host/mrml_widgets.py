"""Stand-ins for the qMRML widgets a panel uses, over real scene observers."""

from __future__ import annotations

from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets

# In Slicer, the qMRML widgets watch the scene through these events of vtkMRMLScene.
_NODE_EVENTS = ("NodeAddedEvent", "NodeAboutToBeRemovedEvent")
_SCENE_EVENTS = (*_NODE_EVENTS, "EndBatchProcessEvent", "EndCloseEvent", "EndImportEvent")


class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801 (Slicer's name)
    """A widget that hands its scene on to the widgets inside it."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._is_entered = False

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene

    # The parent of a module's widget (qSlicerAbstractModuleWidget) also knows whether its module is shown.
    isEntered = QtCore.Property(bool, lambda self: self._is_entered)


class qMRMLNodeComboBox(QtWidgets.QWidget):  # noqa: N801 (Slicer's name)
    """The nodes of some classes in a combo box.

    Like Slicer's: disabled without a scene; "None" first where `noneEnabled`; otherwise the first node that
    appears is selected; when the selected node goes away a neighbour is selected (QComboBox decides).
    """

    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeAddedByUserAction = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observations: list[tuple[Any, int]] = []
        self._node_types: list[str] = []
        self._flags = {"none": False, "add": True, "remove": True, "rename": False, "edit": False, "children": True}
        self._none_display = "None"
        self._base_name = ""
        self._combo = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.currentIndexChanged.connect(self._on_index_changed)
        self.setEnabled(False)

    # scene ------------------------------------------------------------------------------------------------

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        self._observations = []
        self._scene = scene
        if scene is not None:
            for name in _SCENE_EVENTS:
                self._observations.append(
                    (scene, scene.AddObserver(getattr(scene, name), self._on_node_event(name)))
                )
        self._synchronize()
        self.setEnabled(scene is not None)

    def _on_node_event(self, name: str) -> Any:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def with_node(caller: Any, event: str, node: Any) -> None:
            self._synchronize(leaving=node if name == "NodeAboutToBeRemovedEvent" else None)

        def without_node(caller: Any, event: str) -> None:
            self._synchronize()

        return with_node if name in _NODE_EVENTS else without_node

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        found = []
        for index in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(index)
            exact = node.GetClassName() in self._node_types
            inherits = self._flags["children"] and any(node.IsA(name) for name in self._node_types)
            if (exact or inherits) and not node.GetHideFromEditors():
                found.append(node)
        return found

    def _synchronize(self, leaving: Any = None) -> None:
        """Bring the entries in line with the scene, one row at a time so that QComboBox keeps the selection."""
        nodes = [node for node in self._nodes() if node is not leaving]
        wanted = {node.GetID(): node.GetName() for node in nodes}
        has_none = self._combo.count() > 0 and self._combo.itemData(0) == ""
        if self._flags["none"] and not has_none:
            self._combo.insertItem(0, self._none_display, "")
        elif has_none and not self._flags["none"]:
            self._combo.removeItem(0)
        for row in reversed(range(self._combo.count())):
            identifier = self._combo.itemData(row)
            if identifier and identifier not in wanted:
                self._combo.removeItem(row)
        for identifier, name in wanted.items():
            row = self._combo.findData(identifier)
            if row < 0:
                self._combo.addItem(name, identifier)
            elif self._combo.itemText(row) != name:
                self._combo.setItemText(row, name)
        self._watch_names(nodes)

    def _watch_names(self, nodes: list[Any]) -> None:
        kept = []
        for observed, tag in self._observations:
            if observed is self._scene:
                kept.append((observed, tag))
            else:
                observed.RemoveObserver(tag)
        for node in nodes:
            kept.append((node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_node_modified)))
        self._observations = kept

    def _on_node_modified(self, node: Any, event: str) -> None:
        row = self._combo.findData(node.GetID()) if node.GetID() else -1
        if row >= 0 and node.GetHideFromEditors():
            self._combo.removeItem(row)
        elif row >= 0 and self._combo.itemText(row) != node.GetName():
            self._combo.setItemText(row, node.GetName())

    # selection --------------------------------------------------------------------------------------------

    def _on_index_changed(self, index: int) -> None:
        node = self.currentNode()
        self.currentNodeChanged.emit(node)
        self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def currentNode(self) -> Any:
        identifier = self._combo.currentData()
        return self._scene.GetNodeByID(identifier) if identifier and self._scene is not None else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, identifier: str) -> None:
        row = self._combo.findData(identifier) if identifier else -1
        self._combo.setCurrentIndex(row if row >= 0 else (0 if self._flags["none"] else -1))

    def nodeCount(self) -> int:
        return self._combo.count() - int(self._flags["none"])

    def addNode(self) -> Any:
        base = self._base_name or self._scene.GetTagByClassName(self._node_types[0])
        node = self._scene.AddNewNodeByClass(self._node_types[0], self._scene.GenerateUniqueName(base))
        self.setCurrentNode(node)
        self.nodeAddedByUserAction.emit(node)
        return node

    # properties -------------------------------------------------------------------------------------------

    def _flag(name: str) -> Any:  # type: ignore[misc]
        def getter(self: qMRMLNodeComboBox) -> bool:
            return bool(self._flags[name])

        def setter(self: qMRMLNodeComboBox, value: bool) -> None:
            self._flags[name] = value
            self._synchronize()

        return QtCore.Property(bool, getter, setter)

    noneEnabled = _flag("none")
    addEnabled = _flag("add")
    removeEnabled = _flag("remove")
    renameEnabled = _flag("rename")
    editEnabled = _flag("edit")
    showChildNodeTypes = _flag("children")

    def setNodeTypes(self, names: list[str]) -> None:
        self._node_types = list(names)
        self._synchronize()

    def setNoneDisplay(self, text: str) -> None:
        self._none_display = text
        if self._combo.count() and self._combo.itemData(0) == "":
            self._combo.setItemText(0, text)

    def setBaseName(self, name: str) -> None:
        self._base_name = name

    def setSizeAdjustPolicy(self, policy: QtWidgets.QComboBox.SizeAdjustPolicy) -> None:
        self._combo.setSizeAdjustPolicy(policy)

    nodeTypes = QtCore.Property("QStringList", lambda self: self._node_types, setNodeTypes)
    noneDisplay = QtCore.Property(str, lambda self: self._none_display, setNoneDisplay)
    baseName = QtCore.Property(str, lambda self: self._base_name, setBaseName)
