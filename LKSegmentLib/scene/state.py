"""What the panel shows, kept in one node of the scene: saved with it, restored with it, testable without a panel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, slicer_module
from LKSegmentLib.scene.map_nodes import Scale

MODULE_NAME = "LKSegment"
DEFAULT_OPACITY = 0.5
DEFAULT_HIDDEN = 0.5

# Role of the node reference → (MRML class it must have, what it is called in sentences).
_ROLES: dict[str, tuple[str, str]] = {
    "InputVolume": ("vtkMRMLScalarVolumeNode", "input volume"),
    "TargetSegmentation": ("vtkMRMLSegmentationNode", "target segmentation"),
    "PositivePoints": ("vtkMRMLMarkupsFiducialNode", "list of positive points"),
    "NegativePoints": ("vtkMRMLMarkupsFiducialNode", "list of negative points"),
    "Overlay": ("vtkMRMLScalarVolumeNode", "overlay"),
    "SecondOverlay": ("vtkMRMLScalarVolumeNode", "second overlay"),
}


class PanelState:
    """Typed access to the parameter node of the panel, a `vtkMRMLScriptedModuleNode` that exists once in a scene.

    Nothing is cached: the node is looked up whenever it is needed, so the state follows a scene that is closed,
    loaded or edited by others. Getters never raise: a node that is gone reads as None and is named by `problems`.
    Setters raise InputError for a value that does not fit.
    """

    def __init__(self, context: SceneContext) -> None:
        self._context = context
        self._callbacks: list[Callable[[], None]] = []
        self._observed: tuple[Node, int] | None = None

    @property
    def node(self) -> Node:
        """The parameter node; made, with defaults, where the scene has none."""
        scene = self._context.scene
        node = scene.GetSingletonNode(MODULE_NAME, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer_module().vtkMRMLScriptedModuleNode()
            node.SetName(MODULE_NAME)
            node.SetModuleName(MODULE_NAME)
            node.SetSingletonTag(MODULE_NAME)
            node.SetHideFromEditors(True)
            node = scene.AddNode(node)
        if not node.GetModuleName():  # closing the scene keeps this node and empties it
            node.SetModuleName(MODULE_NAME)
        if self._callbacks and (self._observed is None or self._observed[0] is not node):
            self._observe(node)
        return node

    # nodes

    @property
    def input_volume(self) -> Node | None:
        return self._get_node("InputVolume")

    @input_volume.setter
    def input_volume(self, node: Node | None) -> None:
        self._set_node("InputVolume", node)

    @property
    def target_segmentation(self) -> Node | None:
        return self._get_node("TargetSegmentation")

    @target_segmentation.setter
    def target_segmentation(self, node: Node | None) -> None:
        self._set_node("TargetSegmentation", node)

    @property
    def positive_points(self) -> Node | None:
        return self._get_node("PositivePoints")

    @positive_points.setter
    def positive_points(self, node: Node | None) -> None:
        self._set_node("PositivePoints", node)

    @property
    def negative_points(self) -> Node | None:
        return self._get_node("NegativePoints")

    @negative_points.setter
    def negative_points(self, node: Node | None) -> None:
        self._set_node("NegativePoints", node)

    @property
    def overlay(self) -> Node | None:
        return self._get_node("Overlay")

    @overlay.setter
    def overlay(self, node: Node | None) -> None:
        self._set_node("Overlay", node)

    @property
    def second_overlay(self) -> Node | None:
        return self._get_node("SecondOverlay")

    @second_overlay.setter
    def second_overlay(self, node: Node | None) -> None:
        self._set_node("SecondOverlay", node)

    # plain values

    @property
    def model(self) -> str:
        """Name of the model package; "" when none is chosen."""
        return self._text("Model", "")

    @model.setter
    def model(self, name: str) -> None:
        self._set_text("Model", name)

    @property
    def segment_id(self) -> str:
        """Id of the target segment in the target segmentation; "" when none is chosen."""
        return self._text("SegmentID", "")

    @segment_id.setter
    def segment_id(self, identifier: str) -> None:
        self._set_text("SegmentID", identifier)

    @property
    def overlay_visible(self) -> bool:
        return self._text("OverlayVisible", "false") == "true"

    @overlay_visible.setter
    def overlay_visible(self, visible: bool) -> None:
        if not isinstance(visible, bool):
            raise InputError(f"The overlay is visible or not (True or False), not {visible!r}.")
        self._set_text("OverlayVisible", "true" if visible else "false")

    @property
    def overlay_opacity(self) -> float:
        """From 0 (not seen) to 1 (hides the image)."""
        return self._share("OverlayOpacity", DEFAULT_OPACITY)

    @overlay_opacity.setter
    def overlay_opacity(self, opacity: float) -> None:
        self._set_share("OverlayOpacity", opacity, "opacity of the overlay")

    @property
    def second_opacity(self) -> float:
        """Of the second overlay, from 0 to 1."""
        return self._share("SecondOpacity", DEFAULT_OPACITY)

    @second_opacity.setter
    def second_opacity(self, opacity: float) -> None:
        self._set_share("SecondOpacity", opacity, "opacity of the second overlay")

    @property
    def overlay_hidden(self) -> float:
        """How much of the overlay's window, from below, is transparent: from 0 (nothing) to 1."""
        return self._share("OverlayHidden", DEFAULT_HIDDEN)

    @overlay_hidden.setter
    def overlay_hidden(self, share: float) -> None:
        self._set_share("OverlayHidden", share, "hidden part of the overlay")

    @property
    def second_hidden(self) -> float:
        """The same of the second overlay."""
        return self._share("SecondHidden", DEFAULT_HIDDEN)

    @second_hidden.setter
    def second_hidden(self, share: float) -> None:
        self._set_share("SecondHidden", share, "hidden part of the second overlay")

    @property
    def overlay_scale(self) -> Scale:
        """What the colours span: "percentiles" of the whole case, or the "range" of the quantity."""
        return "range" if self._text("OverlayScale", "percentiles") == "range" else "percentiles"

    @overlay_scale.setter
    def overlay_scale(self, scale: Scale) -> None:
        if scale not in ("percentiles", "range"):
            raise InputError(f"The colours span percentiles or range, not {scale!r}.")
        self._set_text("OverlayScale", scale)

    def chosen_maps(self, model: str) -> list[str] | None:
        """The names of the maps to record of a model; None before anybody has chosen."""
        names = self._json("ChosenMaps").get(model)
        return [str(name) for name in names] if isinstance(names, list) else None

    def choose_maps(self, model: str, names: Sequence[str]) -> None:
        """Choose the maps to record of a model."""
        self._set_text("ChosenMaps", json.dumps({**self._json("ChosenMaps"), model: list(names)}, sort_keys=True))

    # what is wrong

    def problems(self, known_models: Iterable[str] | None = None) -> list[str]:
        """A sentence for everything the state names that is not there: deleted nodes, a segment, a model.

        `known_models`: names of the models that are installed; None leaves the model unchecked.
        """
        sentences: list[str] = []
        names = self._node_names()
        for role, (_, what) in _ROLES.items():
            # The scene drops the reference to a deleted node; the name says that one had been chosen.
            if names.get(role) and self._get_node(role) is None:
                sentences.append(f"The {what} '{names[role]}' is no longer in the scene. Choose another one.")
        segmentation = self.target_segmentation
        if segmentation is not None and self.segment_id:
            if segmentation.GetSegmentation().GetSegment(self.segment_id) is None:
                sentences.append(
                    f"The segmentation '{segmentation.GetName()}' has no segment '{self.segment_id}' any more. "
                    "Choose or add another one."
                )
        if known_models is not None and self.model and self.model not in set(known_models):
            sentences.append(f"The model '{self.model}' is not installed on this computer. Choose another one.")
        return sentences

    # changes

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every change; returns a function that ends that."""
        self._callbacks.append(callback)
        self._observe(self.node)

        def stop() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
            if not self._callbacks:
                self._unobserve()

        return stop

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several changes, one notification."""
        node = self.node
        was_modifying = node.StartModify()
        try:
            yield
        finally:
            node.EndModify(was_modifying)

    def _observe(self, node: Node) -> None:
        import vtk

        if self._observed is not None and self._observed[0] is node:
            return
        self._unobserve()
        self._observed = (node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._notify))

    def _unobserve(self) -> None:
        if self._observed is not None:
            node, tag = self._observed
            node.RemoveObserver(tag)
            self._observed = None

    def _notify(self, *_event: Any) -> None:
        for callback in list(self._callbacks):
            callback()

    def _get_node(self, role: str) -> Node | None:
        node = self.node.GetNodeReference(role)
        return node if is_in_scene(node, self._context.scene) and node.IsA(_ROLES[role][0]) else None

    def _set_node(self, role: str, node: Node | None) -> None:
        class_name, what = _ROLES[role]
        if node is not None and not node.IsA(class_name):
            raise InputError(f"'{node.GetName()}' cannot be the {what}: it is a {node.GetNodeTagName()}.")
        if node is not None and not is_in_scene(node, self._context.scene):
            raise InputError(f"'{node.GetName()}' cannot be the {what}: it is not in this scene.")
        with self.together():
            self.node.SetNodeReferenceID(role, node.GetID() if node is not None else None)
            names = self._node_names()
            names[role] = node.GetName() if node is not None else ""
            self._set_text("NodeNames", json.dumps(names, sort_keys=True))

    def _node_names(self) -> dict[str, str]:
        """The names nodes had when they were chosen: to name one that is gone."""
        return {str(role): str(name) for role, name in self._json("NodeNames").items()}

    def _json(self, key: str) -> dict[str, Any]:
        try:
            found = json.loads(self._text(key, "{}"))
        except json.JSONDecodeError:  # a scene file edited by hand
            return {}
        return found if isinstance(found, dict) else {}

    def _share(self, key: str, otherwise: float) -> float:
        try:
            return min(1.0, max(0.0, float(self._text(key, str(otherwise)))))
        except ValueError:  # a scene file edited by hand
            return otherwise

    def _set_share(self, key: str, share: float, what: str) -> None:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 <= share <= 1.0:
            raise InputError(f"The {what} is a number from 0 to 1, not {share!r}.")
        self._set_text(key, repr(float(share)))

    def _text(self, key: str, otherwise: str) -> str:
        return str(self.node.GetParameter(key) or otherwise)

    def _set_text(self, key: str, value: str) -> None:
        if not isinstance(value, str):
            raise InputError(f"{key} is a text, not {value!r}.")
        if self.node.GetParameter(key) != value:
            self.node.SetParameter(key, value)
