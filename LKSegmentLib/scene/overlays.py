"""Maps over the image: float volumes with colours, window, threshold and passport of their own.

Showing one borrows the foreground of the slice views. What the user had there is remembered in the scene itself
and put back; background, label layer and the user's own volumes are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, require_node, slicer_module
from LKSegmentLib.scene.segmentations import place_beside
from LKSegmentLib.scene.volumes import add_volume_node, set_volume
from LKSegmentLib.volumes import Volume

PASSPORT = "LKSegment.passport"
_MAP_NAME = "LKSegment.map"
_SHOWN = "LKSegment.overlayShown"
_USER_FOREGROUND = "LKSegment.userForeground"
_USER_OPACITY = "LKSegment.userForegroundOpacity"
_USER_CLIPPING = "LKSegment.userClipping"
_IMAGE = "LKSegment.image"

# Layers 0 to 2 are background, foreground and label.
_FIRST_EXTRA_LAYER = 3

# Evenly spaced stops of the perceptually uniform table "plasma" (van der Walt and Smith, CC0): dark blue to yellow.
_SEQUENTIAL = (
    "0d0887 330597 5002a2 6a00a8 8405a7 9c179e b12a90 c33d80 d35171 e16462 ed7953 f68f44 fca636 fec029 f9dc24 f0f921"
)
# For values with a sign: blue below, white at, red above the neutral value.
_DIVERGING = "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b"
_TABLES = {"LKSegment sequential": _SEQUENTIAL, "LKSegment diverging": _DIVERGING}


@dataclass(frozen=True)
class MapDisplay:
    """How a map is shown. Values are in the map's own unit; nothing of this changes the numbers.

    Attributes:
        window: (lowest, highest) value of the colour table.
        threshold: values below it are transparent; None shows all.
        table: name of the colour table.
    """

    window: tuple[float, float]
    threshold: float | None
    table: str = "LKSegment sequential"


def display_for(
    values: NDArray[Any],
    passport: Mapping[str, Any] | None = None,
    window: tuple[float, float] | None = None,
    threshold: float | None = None,
    percentiles: tuple[float, float] = (2.0, 99.8),
) -> MapDisplay:
    """Window, threshold and colours for a map, from all its values, so that every slice has the same scale.

    A map whose passport puts a neutral value of 0 inside its range gets the diverging table, centred on it, and
    shows everything. Any other shows the upper half of its window; what is below is transparent.
    Raises InputError for a window that is empty or not finite.
    """
    finite = np.asarray(values)[np.isfinite(values)]
    if window is None:
        low, high = (float(edge) for edge in np.percentile(finite, percentiles)) if finite.size else (0.0, 1.0)
    else:
        low, high = float(window[0]), float(window[1])
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(f"The display window from {low:g} to {high:g} is empty. Give a lower and a higher value.")
    if (passport or {}).get("neutral") == 0 and (finite < 0).any():
        reach = max(abs(low), abs(high)) or 1.0
        return MapDisplay((-reach, reach) if window is None else (low, high), threshold, "LKSegment diverging")
    lowest = ((passport or {}).get("range") or (None,))[0]
    if window is None and isinstance(lowest, (int, float)) and 0.0 <= low - lowest < 0.02 * (high - low):
        low = float(lowest)  # 0, not 1.6e-09
    if high - low <= 1e-12 * max(1.0, abs(high)):
        high = low + 1.0  # a constant map still needs a window
    return MapDisplay((low, high), low + 0.5 * (high - low) if threshold is None else threshold)


def map_node(
    context: SceneContext,
    name: str,
    volume: Volume,
    passport: Mapping[str, Any],
    image_node: Node,
    display: MapDisplay | None = None,
) -> Node:
    """The overlay volume of this map over this image: updated where there is one, else added. Not shown yet.

    The node is float32 on the map's own grid, under the image's parent transform, with its passport as JSON in
    the attribute `LKSegment.passport`. `display` None chooses by `display_for`.
    """
    require_node(image_node, "vtkMRMLScalarVolumeNode", "input volume")
    values = Volume(volume.array.astype(np.float32), volume.ijk_to_ras)
    node = _existing(context, name, image_node)
    if node is None:
        node = add_volume_node(context, values, f"{image_node.GetName()} {name}", like=image_node)
        node.SetAttribute(_MAP_NAME, name)
        node.SetNodeReferenceID(_IMAGE, image_node.GetID())
        place_beside(context, node, image_node)
    else:
        set_volume(node, values, like=image_node)
    chosen = display if display is not None else display_for(values.array, passport)
    shown = {"window": list(chosen.window), "transparent below": chosen.threshold, "colors": chosen.table}
    node.SetAttribute(PASSPORT, json.dumps({**passport, "shown as": shown}, sort_keys=True, default=str))
    set_display(context, node, chosen)
    return node


def passport_of(node: Node) -> dict[str, Any]:
    """The passport of an overlay volume; {} for a volume that has none."""
    try:
        found = json.loads(node.GetAttribute(PASSPORT) or "{}")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def set_display(context: SceneContext, node: Node, display: MapDisplay) -> None:
    """Give an overlay volume its colours, window and threshold."""
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    shown = node.GetDisplayNode()
    was_modifying = shown.StartModify()
    shown.SetAndObserveColorNodeID(color_table(context, display.table).GetID())
    shown.AutoWindowLevelOff()
    shown.SetWindowLevelMinMax(*display.window)
    shown.AutoThresholdOff()
    shown.SetApplyThreshold(display.threshold is not None)
    if display.threshold is not None:
        shown.SetThreshold(display.threshold, float(np.finfo(np.float32).max))
    shown.SetInterpolate(True)
    shown.EndModify(was_modifying)


def color_table(context: SceneContext, name: str) -> Node:
    """The colour table of this name (256 colours), made in the scene and saved with it. InputError: unknown name."""
    if name not in _TABLES:
        raise InputError(f"There is no colour table '{name}'. There are: {', '.join(_TABLES)}.")
    node = context.scene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = context.add_node("vtkMRMLColorTableNode", name)
    node.SetTypeToUser()
    node.SetHideFromEditors(False)
    node.SetNumberOfColors(256)
    stops = np.array([[int(stop[at : at + 2], 16) / 255 for at in (0, 2, 4)] for stop in _TABLES[name].split()])
    places = np.linspace(0, 255, len(stops))
    for index in range(256):
        red, green, blue = (float(np.interp(index, places, stops[:, channel])) for channel in range(3))
        node.SetColor(index, str(index), red, green, blue, 1.0)
    return node


def show(context: SceneContext, node: Node, opacity: float, extra: Sequence[Node] = ()) -> None:
    """Show an overlay in the foreground of every slice view, and `extra` ones in further layers above it.

    The first call remembers what each view had in its foreground. Where Slicer has no further layers (before
    5.10) `extra` is refused with an InputError.
    """
    require_node(node, "vtkMRMLScalarVolumeNode", "overlay")
    _check_opacity(opacity)
    composites = _composites(context)
    if extra and not all(hasattr(composite, "SetNthLayerVolumeID") for composite in composites):
        raise InputError("Only one overlay can be shown at a time in this version of Slicer; more need Slicer 5.10.")
    for composite in composites:
        was_modifying = composite.StartModify()
        if composite.GetAttribute(_SHOWN) is None:
            composite.SetNodeReferenceID(_USER_FOREGROUND, composite.GetForegroundVolumeID())
            composite.SetAttribute(_USER_OPACITY, repr(composite.GetForegroundOpacity()))
            if hasattr(composite, "SetClipToBackgroundVolume"):
                # A map covers the windows the network saw, which reach beyond the image.
                composite.SetAttribute(_USER_CLIPPING, str(int(composite.GetClipToBackgroundVolume())))
                composite.SetClipToBackgroundVolume(True)
        composite.SetAttribute(_SHOWN, node.GetID())
        composite.SetForegroundVolumeID(node.GetID())
        composite.SetForegroundOpacity(float(opacity))
        for layer, other in enumerate(extra, start=_FIRST_EXTRA_LAYER):
            composite.SetNthLayerVolumeID(layer, other.GetID())
            composite.SetNthLayerOpacity(layer, float(opacity))
        composite.EndModify(was_modifying)


def set_opacity(context: SceneContext, opacity: float) -> None:
    """Change the opacity of what `show` shows; nothing where it shows nothing."""
    _check_opacity(opacity)
    for composite in _composites(context):
        if _shows_ours(composite):
            composite.SetForegroundOpacity(float(opacity))
            for layer in _extra_layers(composite):
                composite.SetNthLayerOpacity(layer, float(opacity))


def hide(context: SceneContext) -> None:
    """Put the foreground of every slice view back as the user had it. A view the user changed since is left alone."""
    for composite in _composites(context):
        if composite.GetAttribute(_SHOWN) is None:
            continue
        was_modifying = composite.StartModify()
        if _shows_ours(composite):
            user = composite.GetNodeReference(_USER_FOREGROUND)
            composite.SetForegroundVolumeID(user.GetID() if is_in_scene(user, context.scene) else None)
            composite.SetForegroundOpacity(float(composite.GetAttribute(_USER_OPACITY) or 0.0))
        if composite.GetAttribute(_USER_CLIPPING) is not None:
            composite.SetClipToBackgroundVolume(composite.GetAttribute(_USER_CLIPPING) == "1")
        for layer in _extra_layers(composite):
            if _is_map(composite.GetNthLayerVolume(layer)):
                composite.SetNthLayerVolumeID(layer, None)
        composite.SetNodeReferenceID(_USER_FOREGROUND, None)
        for attribute in (_USER_OPACITY, _USER_CLIPPING, _SHOWN):
            composite.RemoveAttribute(attribute)
        composite.EndModify(was_modifying)


def is_shown(context: SceneContext, node: Node) -> bool:
    """Whether a slice view shows this overlay in its foreground."""
    return any(composite.GetForegroundVolumeID() == node.GetID() for composite in _composites(context))


def add_legend(node: Node, title: str, view_ids: Sequence[str] = ()) -> Node:
    """A colour legend for the overlay, in the given views (all slice views where none is given)."""
    slicer = slicer_module()
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.2g")
    legend.SetNumberOfLabels(3)
    legend.RemoveAllViewNodeIDs()
    for view_id in view_ids:
        legend.AddViewNodeID(view_id)
    return legend


def _composites(context: SceneContext) -> list[Node]:
    scene = context.scene
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    return [scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode") for index in range(count)]


def _existing(context: SceneContext, name: str, image_node: Node) -> Node | None:
    scene = context.scene
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode")
        if node.GetAttribute(_MAP_NAME) == name and node.GetNodeReferenceID(_IMAGE) == image_node.GetID():
            return node
    return None


def _is_map(node: Node | None) -> bool:
    return node is not None and node.GetAttribute(_MAP_NAME) is not None


def _shows_ours(composite: Node) -> bool:
    if composite.GetAttribute(_SHOWN) is None:
        return False
    foreground = composite.GetNodeReference("foregroundVolume") if composite.GetForegroundVolumeID() else None
    return foreground is None or _is_map(foreground)


def _extra_layers(composite: Node) -> range:
    if not hasattr(composite, "GetNumberOfAdditionalLayers"):
        return range(0)
    return range(_FIRST_EXTRA_LAYER, _FIRST_EXTRA_LAYER + composite.GetNumberOfAdditionalLayers())


def _check_opacity(opacity: float) -> None:
    if not 0.0 <= opacity <= 1.0:
        raise InputError(f"The opacity of the overlay is a number from 0 to 1, not {opacity!r}.")
