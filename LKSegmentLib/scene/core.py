"""Where the scene and its module logics come from: the running Slicer application, or slicer-core alone.

Everything else in this room asks a `SceneContext` and never finds out which of the two it is.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from LKSegmentLib.errors import InputError, RunError

# MRML classes are generated at run time and carry no type information.
Node = Any
Scene = Any

_HEADLESS_LOGICS = (
    ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    ("Volumes", "vtkSlicerVolumesLogic"),
    ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    ("Markups", "vtkSlicerMarkupsLogic"),
)


def slicer_module() -> Any:
    """The `slicer` package. RunError with advice when neither Slicer nor slicer-core is there."""
    try:
        import slicer
    except ImportError as error:
        raise RunError(
            "Slicer's data model could not be imported. Run this inside 3D Slicer, or install the package "
            f"slicer-core into this Python ({error})."
        ) from error
    return slicer


class SceneContext:
    """A MRML scene and the module logics that work on it.

    Attributes:
        scene: the `vtkMRMLScene`.
        application_logic: the `vtkMRMLApplicationLogic` of the scene.
        in_application: True inside the running Slicer application, False on slicer-core alone.
    """

    def __init__(
        self, scene: Scene, application_logic: Any, find_logic: Callable[[str], Any], in_application: bool
    ) -> None:
        self.scene = scene
        self.application_logic = application_logic
        self.in_application = in_application
        self._find_logic = find_logic

    def logic(self, name: str) -> Any:
        """The logic of a module by its lower-case name, such as "segmentations". RunError when there is none."""
        found = self._find_logic(name.lower())
        if found is None:
            raise RunError(f"The Slicer module '{name}' is not loaded, and LKSegment needs it.")
        return found

    def add_node(self, class_name: str, name: str = "") -> Node:
        """Add a node of this class. RunError when the scene does not know the class."""
        node = self.scene.AddNewNodeByClass(class_name, self.scene.GenerateUniqueName(name) if name else "")
        if node is None:
            raise RunError(f"The scene cannot create a node of class {class_name}.")
        return node

    def remove_node(self, node: Node) -> None:
        """Remove a displayable node together with its display nodes, which the scene would keep."""
        displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
        self.scene.RemoveNode(node)
        for display in displays:
            if is_in_scene(display, self.scene):
                self.scene.RemoveNode(display)


def application_scene() -> SceneContext:
    """The scene of the running Slicer application. RunError outside of it."""
    slicer = slicer_module()
    scene = getattr(slicer, "mrmlScene", None)
    application = getattr(slicer, "app", None)
    modules = getattr(slicer, "modules", None)
    if scene is None or modules is None:
        raise RunError("There is no running Slicer application here. Use headless_scene() instead.")

    def find_logic(name: str) -> Any:
        module = getattr(modules, name, None)
        return None if module is None else module.logic()

    application_logic = application.applicationLogic() if application is not None else None
    return SceneContext(scene, application_logic, find_logic, in_application=True)


def headless_scene() -> SceneContext:
    """A new scene on slicer-core, without the application: a scene, its logics, and the three slice orientations.

    Two calls give two independent scenes. Nothing global is set; a host that runs code written for the
    application calls `publish` on the result.
    """
    slicer = slicer_module()
    import vtk  # after slicer, whose absence has a sentence

    scene = slicer.vtkMRMLScene()
    application_logic = slicer.vtkSlicerApplicationLogic()
    # Displayable managers look for the logic of their view in these.
    application_logic.SetSliceLogics(vtk.vtkCollection())
    application_logic.SetViewLogics(vtk.vtkCollection())
    application_logic.SetMRMLScene(scene)
    # Not vtkSlicerColorLogic: it complains about colour files, which slicer-core does not carry.
    colors = slicer.vtkMRMLColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    application_logic.SetModuleLogic("Colors", colors)
    logics: dict[str, Any] = {"colors": colors}
    for name, class_name in _HEADLESS_LOGICS:
        logic = getattr(slicer, class_name)()
        # The application logic comes first: some logics ask it for "Colors" while they meet the scene.
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        application_logic.SetModuleLogic(name, logic)
        logics[name.lower()] = logic
    # The scene forgets its node classes of the Segment Editor unless this logic has met it once.
    editor = slicer.vtkSlicerSegmentEditorLogic()
    editor.SetMRMLScene(scene)
    logics["segmenteditor"] = editor
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return SceneContext(scene, application_logic, logics.get, in_application=False)


def publish(context: SceneContext, names: tuple[str, ...] = ("colors", "volumes", "segmentations", "markups")) -> None:
    """Set `slicer.mrmlScene` and `slicer.modules`, which code written for the application expects to find."""
    slicer = slicer_module()
    slicer.mrmlScene = context.scene
    modules = types.SimpleNamespace()
    for name in names:
        logic = context.logic(name)
        setattr(modules, name, types.SimpleNamespace(logic=lambda logic=logic: logic))
    slicer.modules = modules


def is_in_scene(node: Node | None, scene: Scene | None = None) -> bool:
    """True while the node has not been deleted (a Python reference outlives the deletion from the scene)."""
    if node is None:
        return False
    owner = node.GetScene()
    return owner is not None and (scene is None or owner is scene) and owner.IsNodePresent(node) != 0


def require_node(node: Node | None, class_name: str, what: str) -> Node:
    """The node, if it is of this class and still in a scene; InputError with a sentence otherwise.

    `what` names it for the person: "input volume", "target segmentation".
    """
    if node is None:
        raise InputError(f"No {what} is chosen. Choose one first.")
    if not node.IsA(class_name):
        raise InputError(f"The {what} '{node.GetName()}' is a {node.GetNodeTagName()}, which does not fit here.")
    if not is_in_scene(node):
        raise InputError(f"The {what} '{node.GetName()}' is no longer in the scene. Choose another one.")
    return node
