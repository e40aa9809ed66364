"""Maps as volumes of the scene: exact float32 values with colours, window, threshold and passport of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.inspection import Map
from LKSegmentLib.inspection.maps import CASE, WINDOW_VALUES, case_percentiles
from LKSegmentLib.scene.core import Node, SceneContext, require_node, slicer_module
from LKSegmentLib.scene.geometry import image_array
from LKSegmentLib.scene.segmentations import place_beside
from LKSegmentLib.scene.volumes import add_volume_node, grid_of, set_volume, volume_of
from LKSegmentLib.volumes import Volume

PASSPORT = "LKSegment.passport"
MAP_NAME = "LKSegment.map"
IMAGE = "LKSegment.image"

Scale = Literal["percentiles", "range"]

# Evenly spaced stops of two perceptually uniform tables, "plasma" and "viridis" (van der Walt and Smith, CC0).
_SEQUENTIAL = (
    "0d0887 330597 5002a2 6a00a8 8405a7 9c179e b12a90 c33d80 d35171 e16462 ed7953 f68f44 fca636 fec029 f9dc24 f0f921"
)
_SECOND = (
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
)
# For values with a sign: blue below, white at, red above the neutral value.
_DIVERGING = "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b"
SEQUENTIAL, SECOND, DIVERGING = "LKSegment sequential", "LKSegment second", "LKSegment diverging"
_TABLES = {SEQUENTIAL: _SEQUENTIAL, SECOND: _SECOND, DIVERGING: _DIVERGING}


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
    table: str = SEQUENTIAL


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
    case = case_percentiles(values, percentiles)
    return _display(case, passport or {}, window, threshold)


def display_from(passport: Mapping[str, Any], scale: Scale = "percentiles", share: float = 0.5) -> MapDisplay:
    """The same from the passport of a map in the scene alone, however many voxels it has.

    Args:
        passport: of `passport_of`, with the percentiles of the whole case.
        scale: "percentiles", from the 2nd to the 99.8th of the whole case; "range", everything the quantity can be,
            and where that has no end, everything it is in this case.
        share: how much of the window, from below, is transparent; 0 shows all. A map with a sign is shown whole.
    """
    case = passport.get(CASE)
    if not isinstance(case, dict) or not {"least", "low", "high", "most"} <= set(case):
        raise InputError("The passport of this map does not say how its values are distributed: record it again.")
    window = None
    if scale == "range":
        least, most = passport.get("range") or (None, None)
        whole = (case["least"] if least is None else float(least), case["most"] if most is None else float(most))
        window = whole if whole[0] < whole[1] else None
    shown = _display(case, passport, window, None)
    low, high = shown.window
    if shown.table == DIVERGING:
        return shown
    return MapDisplay(shown.window, low + share * (high - low) if share > 0 else None)


def _display(
    case: Mapping[str, float],
    passport: Mapping[str, Any],
    window: tuple[float, float] | None,
    threshold: float | None,
) -> MapDisplay:
    low, high = float(case["low"]), float(case["high"])
    if window is not None:
        low, high = float(window[0]), float(window[1])
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(f"The display window from {low:g} to {high:g} is empty. Give a lower and a higher value.")
    if passport.get("neutral") == 0 and case["least"] < 0:
        reach = max(abs(low), abs(high)) or 1.0
        return MapDisplay((-reach, reach) if window is None else (low, high), threshold, DIVERGING)
    lowest = (passport.get("range") or (None,))[0]
    if window is None and isinstance(lowest, (int, float)) and 0.0 <= low - lowest < 0.02 * (high - low):
        low = float(lowest)  # 0, not 1.6e-09
    if _flat(low, high):
        low, high = float(case["least"]), float(case["most"])  # nearly constant: what is seen are the exceptions
    if _flat(low, high):
        low, high = _around_constant(low, passport)
    return MapDisplay((low, high), low + 0.5 * (high - low) if threshold is None else threshold)


def _flat(low: float, high: float) -> bool:
    return high - low <= 1e-12 * max(1.0, abs(high))


def _around_constant(value: float, passport: Mapping[str, Any]) -> tuple[float, float]:
    """A constant map still needs a window: everything that the quantity can be, where that is known."""
    least, most = passport.get("range") or (None, None)
    if least is not None and most is not None and least <= value <= most and least < most:
        return float(least), float(most)
    return value, value + 1.0


def digits_for(window: tuple[float, float], least: int = 2) -> int:
    """How many significant digits tell the ends of a window apart, and its middle from both."""
    low, high = window
    largest = max(abs(low), abs(high))
    if not largest or high <= low:
        return least
    return least + min(5, max(0, math.floor(math.log10(largest / (high - low) / 2))))


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
    the attribute `LKSegment.passport`. It shares the voxels of `volume`, which are not to be changed. `display` None
    chooses by `display_from`.
    """
    require_node(image_node, "vtkMRMLScalarVolumeNode", "input volume")
    values = Volume(volume.array.astype(np.float32, copy=False), volume.ijk_to_ras)
    node = next((found for found in maps_of(context, image_node) if found.GetAttribute(MAP_NAME) == name), None)
    if node is None:
        node = add_volume_node(context, values, f"{image_node.GetName()} {name}", like=image_node, copy=False)
        node.SetAttribute(MAP_NAME, name)
        node.SetNodeReferenceID(IMAGE, image_node.GetID())
        place_beside(context, node, image_node)
    else:
        set_volume(node, values, like=image_node, copy=False)
    known = passport if CASE in passport else {**passport, CASE: case_percentiles(values.array)}
    node.SetAttribute(PASSPORT, json.dumps(known, sort_keys=True, default=str))
    set_display(context, node, display if display is not None else display_from(passport_of(node)))
    return node


def passport_of(node: Node) -> dict[str, Any]:
    """The passport of an overlay volume; {} for a volume that has none."""
    try:
        found = json.loads(node.GetAttribute(PASSPORT) or "{}")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def set_display(context: SceneContext, node: Node, display: MapDisplay) -> None:
    """Give an overlay volume its colours, window and threshold, and say so in its passport."""
    if node.GetDisplayNode() is None:
        # Slicer's default one looks at every voxel for a window of its own: seconds for a large map.
        own = slicer_module().vtkMRMLScalarVolumeDisplayNode()
        own.AutoWindowLevelOff()
        node.SetAndObserveDisplayNodeID(node.GetScene().AddNode(own).GetID())
    shown = node.GetDisplayNode()
    was_modifying = shown.StartModify()
    shown.SetAndObserveColorNodeID(color_table(context, display.table).GetID())
    shown.AutoWindowLevelOff()
    shown.SetWindowLevelMinMax(*display.window)
    shown.AutoThresholdOff()
    shown.SetApplyThreshold(display.threshold is not None)
    if display.threshold is not None:
        shown.SetThreshold(display.threshold, float(np.finfo(np.float32).max))
    shown.SetInterpolate(WINDOW_VALUES not in passport_of(node))  # windows have hard borders
    shown.EndModify(was_modifying)
    told = {"window": list(display.window), "transparent below": display.threshold, "colors": display.table}
    passport = passport_of(node)
    if passport and passport.get("shown as") != told:
        node.SetAttribute(PASSPORT, json.dumps({**passport, "shown as": told}, sort_keys=True))


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
    for index, color in enumerate(colors_of(name) / 255):
        node.SetColor(index, str(index), *color.tolist(), 1.0)
    return node


def colors_of(name: str) -> NDArray[np.float64]:
    """The 256 colours of a table, (256, 3), 0 to 255."""
    stops = np.array([[int(stop[at : at + 2], 16) for at in (0, 2, 4)] for stop in _TABLES[name].split()])
    places = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), places, stops[:, channel]) for channel in range(3)], axis=1)


def add_legend(node: Node, title: str, view_ids: Sequence[str] = ()) -> Node:
    """A colour legend for the overlay, in the given views (all slice views where none is given).

    Slicer draws legends of volumes in the background, the foreground and the label layer, not of further layers.
    """
    slicer = slicer_module()
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(title)
    shown = node.GetDisplayNode()
    digits = digits_for((shown.GetWindowLevelMin(), shown.GetWindowLevelMax()))
    legend.SetLabelFormat(f"%.{digits}g")
    legend.SetNumberOfLabels(3)
    legend.RemoveAllViewNodeIDs()
    for view_id in view_ids:
        legend.AddViewNodeID(view_id)
    return legend


def maps_of(context: SceneContext, image_node: Node | None) -> list[Node]:
    """The map volumes over this image, in the order in which they were added; of a loaded scene too."""
    scene = context.scene
    nodes = [
        scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode")
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"))
    ]
    identifier = image_node.GetID() if image_node is not None else None
    return [node for node in nodes if is_map(node) and node.GetNodeReferenceID(IMAGE) == identifier]


def map_of(node: Node, copy: bool = True) -> Map:
    """The map of an overlay volume: its values, place and passport.

    `copy` False: the values are those of the scene and change with them, so that one of them is read for free.
    """
    if copy:
        return Map(str(node.GetAttribute(MAP_NAME)), volume_of(node), passport_of(node))
    values = Volume(image_array(node.GetImageData()), grid_of(node).ijk_to_ras)
    return Map(str(node.GetAttribute(MAP_NAME)), values, passport_of(node))


def is_map(node: Node | None) -> bool:
    """Whether a node is an overlay volume."""
    return node is not None and node.GetAttribute(MAP_NAME) is not None
