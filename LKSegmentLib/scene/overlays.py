"""Maps in the slice views: one in the foreground, a second in a further layer above it where Slicer has those.

What the user had in a view is remembered in the scene itself, from the first map that is shown on. `hide` takes the
maps away again and leaves alone what the user changed meanwhile; `restore` puts every layer back as it was remembered.
Background, label layer and the user's own volumes are never touched by showing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, require_node
from LKSegmentLib.scene.map_nodes import (
    PASSPORT,
    MapDisplay,
    add_legend,
    color_table,
    display_for,
    display_from,
    is_map,
    map_node,
    maps_of,
    passport_of,
    set_display,
)

__all__ = [
    "PASSPORT", "MapDisplay", "add_legend", "color_table", "display_for", "display_from", "has_further_layers", "hide",
    "is_map", "is_shown", "map_node", "maps_of", "note_opacities", "passport_of", "remembers", "restore",
    "restore_opacities", "set_display", "set_opacity", "show",
]  # fmt: skip

# On the composite node of a view: JSON of what is no node; node references, which follow when a scene is merged.
_REMEMBERED = "LKSegment.userLayers"
_SAVED = "LKSegment.furtherOpacities"
_OURS = "LKSegment.overlay"
_USER = "LKSegment.user."
_USER_FURTHER = "LKSegment.userFurtherLayer"

# Layers 0 to 2 are background, foreground and label.
_LAYERS = ("Background", "Foreground", "Label")
_FIRST_FURTHER = 3

_Layer = tuple[str | None, float]


def show(
    context: SceneContext,
    node: Node,
    opacity: float,
    extra: Sequence[Node] = (),
    extra_opacity: float | None = None,
) -> None:
    """Show an overlay in the foreground of every slice view, and `extra` ones in further layers above it.

    The first call remembers what each view had. A user's own further layers stay where they are. `extra_opacity`:
    that of the further ones; None is `opacity`. Where Slicer has no further layers (before 5.10) `extra` is refused
    with an InputError.
    """
    require_node(node, "vtkMRMLScalarVolumeNode", "overlay")
    above = opacity if extra_opacity is None else extra_opacity
    for value in (opacity, above):
        _check_opacity(value)
    if extra and not has_further_layers(context):
        raise InputError("Only one overlay can be shown at a time in this version of Slicer; more need Slicer 5.10.")
    for composite in _composites(context):
        was_modifying = composite.StartModify()
        _remember(composite)
        own = _ours(composite)
        _reference(composite, _OURS, [node.GetID(), *(other.GetID() for other in extra)])
        composite.SetForegroundVolumeID(node.GetID())
        composite.SetForegroundOpacity(float(opacity))
        composite.SetCompositing(composite.Alpha)
        if hasattr(composite, "SetClipToBackgroundVolume"):
            # A map covers the windows the network saw, which reach beyond the image.
            composite.SetClipToBackgroundVolume(True)
        users = [layer for layer in _further(composite) if layer[0] not in own]
        _set_further(composite, [*users, *((other.GetID(), float(above)) for other in extra)])
        _note(composite)
        composite.EndModify(was_modifying)


def set_opacity(context: SceneContext, opacity: float, extra_opacity: float | None = None) -> None:
    """Change the opacities of what `show` shows; nothing where it shows nothing."""
    above = opacity if extra_opacity is None else extra_opacity
    for value in (opacity, above):
        _check_opacity(value)
    for composite in _composites(context):
        own = _ours(composite)
        if composite.GetForegroundVolumeID() in own:
            composite.SetForegroundOpacity(float(opacity))
        for place, (identifier, _) in enumerate(_further(composite)):
            if identifier in own:
                composite.SetNthLayerOpacity(_FIRST_FURTHER + place, float(above))
        if own:
            _note(composite)


def hide(context: SceneContext) -> None:
    """Take the overlays away. A view, or a layer of it, that the user changed since is left alone."""
    for composite in _composites(context):
        remembered = _remembered(composite)
        if remembered is None:
            continue
        was_modifying = composite.StartModify()
        own, foreground = _ours(composite), composite.GetForegroundVolumeID()
        if foreground is None or foreground in own:
            composite.SetForegroundVolumeID(_user_volume(composite, "Foreground"))
            composite.SetForegroundOpacity(float(remembered["Foreground"]))
        if composite.GetCompositing() == composite.Alpha:
            composite.SetCompositing(int(remembered["compositing"]))
        if remembered["clip"] is not None and composite.GetClipToBackgroundVolume():
            composite.SetClipToBackgroundVolume(bool(remembered["clip"]))
        _set_further(composite, [layer for layer in _further(composite) if layer[0] not in own])
        _forget(composite)
        composite.EndModify(was_modifying)


def restore(context: SceneContext) -> None:
    """Put every layer of every slice view back exactly as it was before the first overlay was shown.

    Volumes that were deleted meanwhile leave their layer empty.
    """
    for composite in _composites(context):
        remembered = _remembered(composite)
        if remembered is None:
            continue
        was_modifying = composite.StartModify()
        for layer in _LAYERS:
            getattr(composite, f"Set{layer}VolumeID")(_user_volume(composite, layer))
        composite.SetForegroundOpacity(float(remembered["Foreground"]))
        composite.SetLabelOpacity(float(remembered["Label"]))
        composite.SetCompositing(int(remembered["compositing"]))
        if remembered["clip"] is not None:
            composite.SetClipToBackgroundVolume(bool(remembered["clip"]))
        users = [composite.GetNthNodeReference(_USER_FURTHER, n) for n in range(len(remembered["further"]))]
        opacities = zip(users, remembered["further"], strict=True)
        _set_further(composite, [(user.GetID(), float(at)) for user, at in opacities if is_in_scene(user)])
        _forget(composite)
        composite.EndModify(was_modifying)


def remembers(context: SceneContext) -> bool:
    """Whether there is something that `restore` would put back."""
    return any(_remembered(composite) is not None for composite in _composites(context))


def is_shown(context: SceneContext, node: Node) -> bool:
    """Whether a slice view shows this overlay."""
    identifier = node.GetID()
    return any(
        composite.GetForegroundVolumeID() == identifier or identifier in [layer for layer, _ in _further(composite)]
        for composite in _composites(context)
    )


def has_further_layers(context: SceneContext) -> bool:
    """Whether this Slicer can show more than background, foreground and label (5.10 and later)."""
    return all(hasattr(composite, "SetNthLayerVolumeID") for composite in _composites(context))


def note_opacities(context: SceneContext) -> None:
    """Write down the opacities of further layers, which Slicer does not save with a scene. Call before saving."""
    for composite in _composites(context):
        if _further(composite):
            _note(composite)


def restore_opacities(context: SceneContext) -> None:
    """Give further layers the opacities that were written down. Call after a scene was loaded."""
    for composite in _composites(context):
        saved = _json(composite.GetAttribute(_SAVED))
        layers = _further(composite)
        if isinstance(saved, list) and len(saved) == len(layers):
            _set_further(composite, [(layer, float(at)) for (layer, _), at in zip(layers, saved, strict=True)])


# what a view has ----------------------------------------------------------------------------------------------


def _composites(context: SceneContext) -> list[Node]:
    scene = context.scene
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    return [scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode") for index in range(count)]


def _further(composite: Node) -> list[_Layer]:
    """(volume id, opacity) of each layer above the label; none in a Slicer that has no further layers."""
    count = composite.GetNumberOfAdditionalLayers() if hasattr(composite, "GetNumberOfAdditionalLayers") else 0
    places = range(_FIRST_FURTHER, _FIRST_FURTHER + count)
    return [(composite.GetNthLayerVolumeID(place), composite.GetNthLayerOpacity(place)) for place in places]


def _set_further(composite: Node, layers: Sequence[_Layer]) -> None:
    """Make these the layers above the label.

    Every opacity is set, from the lowest layer on: Slicer makes a layer below the highest that was ever set
    invisible if its own was never set. One that becomes free gets back the opacity of a fresh layer.
    """
    before = _further(composite)
    if list(layers) == before:
        return
    for place in reversed(range(len(before))):
        composite.SetNthLayerVolumeID(_FIRST_FURTHER + place, None)
        composite.SetNthLayerOpacity(_FIRST_FURTHER + place, 1.0)
    for place, (identifier, opacity) in enumerate(layers, start=_FIRST_FURTHER):
        composite.SetNthLayerOpacity(place, opacity)
        composite.SetNthLayerVolumeID(place, identifier)


def _ours(composite: Node) -> list[str]:
    """The ids of the overlays that `show` put there and that still exist."""
    count = composite.GetNumberOfNodeReferences(_OURS)
    return [composite.GetNthNodeReferenceID(_OURS, index) for index in range(count)]


def _remember(composite: Node) -> None:
    if _remembered(composite) is not None:
        return
    layers = _further(composite)
    remembered: dict[str, Any] = {
        "Foreground": composite.GetForegroundOpacity(),
        "Label": composite.GetLabelOpacity(),
        "compositing": composite.GetCompositing(),
        "clip": composite.GetClipToBackgroundVolume() if hasattr(composite, "GetClipToBackgroundVolume") else None,
        "further": [opacity for _, opacity in layers],
    }
    for layer in _LAYERS:
        composite.SetNodeReferenceID(_USER + layer, getattr(composite, f"Get{layer}VolumeID")())
    _reference(composite, _USER_FURTHER, [identifier for identifier, _ in layers])
    composite.SetAttribute(_REMEMBERED, json.dumps(remembered))


def _remembered(composite: Node) -> dict[str, Any] | None:
    found = _json(composite.GetAttribute(_REMEMBERED))
    return found if isinstance(found, dict) else None


def _forget(composite: Node) -> None:
    for layer in _LAYERS:
        composite.SetNodeReferenceID(_USER + layer, None)
    for role in (_USER_FURTHER, _OURS):
        composite.RemoveNodeReferenceIDs(role)
    for attribute in (_REMEMBERED, _SAVED):
        composite.RemoveAttribute(attribute)


def _user_volume(composite: Node, layer: str) -> str | None:
    user = composite.GetNodeReference(_USER + layer)
    return user.GetID() if is_in_scene(user) else None


def _reference(composite: Node, role: str, identifiers: Sequence[str | None]) -> None:
    composite.RemoveNodeReferenceIDs(role)
    for identifier in identifiers:
        composite.AddNodeReferenceID(role, identifier)


def _note(composite: Node) -> None:
    composite.SetAttribute(_SAVED, json.dumps([opacity for _, opacity in _further(composite)]))


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except json.JSONDecodeError:  # a scene file edited by hand
        return None


def _check_opacity(opacity: float) -> None:
    if not 0.0 <= opacity <= 1.0:
        raise InputError(f"The opacity of the overlay is a number from 0 to 1, not {opacity!r}.")
