"""Tables of an inspection in the scene: a table node each, a plot for those that are curves, and the slice on screen.

Everything belongs to an image, is saved with the scene and leaves by `remove_tables`. Nothing of the user's is touched:
`show_in_views` remembers which layout, table and plot were shown, and `hide_from_views` puts them back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.inspection import Table
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene, slicer_module
from LKSegmentLib.scene.geometry import from_vtk_matrix
from LKSegmentLib.scene.segmentations import place_beside

TABLE_NAME = "LKSegment.table"
_ABOUT = "LKSegment.tableAbout"  # JSON: passport, x, y
_IMAGE = "LKSegment.image"
_CHART = "LKSegment.chart"
_SERIES = "LKSegment.series"
_MARKER = "LKSegment.sliceMarker"
_USER_LAYOUT = "LKSegment.userLayout"
_USER_TABLE = "LKSegment.userTable"
_USER_CHART = "LKSegment.userChart"

ON_SCREEN = "on screen"
"""Name of the column that marks the row of the slice on screen."""
MARK, NO_MARK = "•", "-"
_PLACE = ("R (mm)", "A (mm)", "S (mm)")

# Okabe and Ito's colours, which people with impaired colour vision can tell apart.
_COLORS = ("0072b2", "e69f00", "009e73", "d55e00", "cc79a7", "56b4e9", "f0e442", "999999")
_ALONG = 0.9  # cosine of the largest angle between a view's normal and the slice axis: 26 degrees


def add_table(context: SceneContext, table: Table, image_node: Node) -> Node:
    """The table node of this table over this image, its values replaced where there is one; with a plot for a curve.

    A cell without a value is "not a number" among numbers and "-" among words.
    """
    node = next((one for one in tables_of(context, image_node) if one.GetAttribute(TABLE_NAME) == table.name), None)
    if node is None:
        node = context.add_node("vtkMRMLTableNode", f"{image_node.GetName()} {table.name}")
        node.SetAttribute(TABLE_NAME, table.name)
        node.SetNodeReferenceID(_IMAGE, image_node.GetID())
        place_beside(context, node, image_node)
    was_modifying = node.StartModify()
    _fill(node, table)
    about = {"passport": table.passport, "x": table.x, "y": list(table.y)}
    node.SetAttribute(_ABOUT, json.dumps(about, sort_keys=True, default=str))
    node.SetLocked(True)
    node.EndModify(was_modifying)
    _remove_plot(context, node)
    if table.x is not None and table.y and table.rows:
        _add_plot(context, node, table)
    return node


def tables_of(context: SceneContext, image_node: Node | None) -> list[Node]:
    """The table nodes over this image, in the order in which they were added; of a loaded scene too."""
    identifier = image_node.GetID() if image_node is not None else None
    nodes = _nodes(context, "vtkMRMLTableNode")
    return [node for node in nodes if node.GetAttribute(TABLE_NAME) and node.GetNodeReferenceID(_IMAGE) == identifier]


def passport_of(node: Node) -> dict[str, Any]:
    """The passport of a table; {} for one that has none."""
    found = _about(node).get("passport")
    return found if isinstance(found, dict) else {}


def chart_of(node: Node) -> Node | None:
    """The plot of a table; None for one that is no curve."""
    chart = node.GetNodeReference(_CHART)
    return chart if is_in_scene(chart) else None


def remove_tables(context: SceneContext, image_node: Node | None) -> int:
    """Remove the tables over this image with their plots; how many there were."""
    found = tables_of(context, image_node)
    for node in found:
        remove_table(context, node)
    return len(found)


def remove_table(context: SceneContext, node: Node) -> None:
    """Remove a table with its plot."""
    _remove_plot(context, node)
    storage = node.GetStorageNode()
    context.scene.RemoveNode(node)
    if is_in_scene(storage, context.scene):
        context.scene.RemoveNode(storage)


# the slice on screen ------------------------------------------------------------------------------------------


def has_slices(node: Node) -> bool:
    """Whether the rows of a table are slices, with a place each."""
    return all(node.GetColumnIndex(name) >= 0 for name in _PLACE) and node.GetColumnIndex(ON_SCREEN) >= 0


def mark_slice(node: Node, slice_nodes: Sequence[Node]) -> int | None:
    """Mark the row of the slice that a view shows, in the table and in its plot; its number, None where there is none.

    Of the slice views, the one counts whose slices are most nearly those of the table; where none is within 26° of
    them, or where it shows a place beyond the first and last row, no row is marked.
    """
    if not has_slices(node):
        return None
    places = np.stack([_numbers(node, name) for name in _PLACE], axis=1)
    row = _row_on_screen(places, slice_nodes)
    column = node.GetTable().GetColumnByName(ON_SCREEN)
    before = [index for index in range(column.GetNumberOfValues()) if column.GetValue(index) == MARK]
    if before != ([] if row is None else [row]):
        for index in before:
            column.SetValue(index, NO_MARK)
        if row is not None:
            column.SetValue(row, MARK)
        column.DataChanged()
        node.GetTable().Modified()
        _move_marker(node, row)
    return row


def _row_on_screen(places: NDArray[np.float64], slice_nodes: Sequence[Node]) -> int | None:
    if len(places) < 2 or not slice_nodes:
        return None
    apart = float(np.linalg.norm(places[-1] - places[0]))
    if not apart:
        return None
    axis = (places[-1] - places[0]) / apart
    matrices = [from_vtk_matrix(node.GetSliceToRAS()) for node in slice_nodes]
    matrix = max(matrices, key=lambda one: abs(float(one[:3, 2] @ axis) / float(np.linalg.norm(one[:3, 2]))))
    normal = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    if abs(float(normal @ axis)) < _ALONG:
        return None
    distances = np.abs((places - matrix[:3, 3]) @ normal)
    row = int(distances.argmin())
    step = apart / (len(places) - 1) * abs(float(normal @ axis))
    return row if distances[row] <= step / 2 * (1 + 1e-6) else None


# plots --------------------------------------------------------------------------------------------------------


def _add_plot(context: SceneContext, node: Node, table: Table) -> None:
    slicer = slicer_module()
    chart = context.add_node("vtkMRMLPlotChartNode", node.GetName())
    chart.SetTitle(table.name)
    chart.SetXAxisTitle(table.x or "")
    unit = str(table.passport.get("unit", ""))
    chart.SetYAxisTitle(table.y[0] if len(table.y) == 1 else unit)
    node.SetNodeReferenceID(_CHART, chart.GetID())
    for number, name in enumerate(table.y):
        series = context.add_node("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(node.GetID())
        series.SetXColumnName(table.x)
        series.SetYColumnName(name)
        _draw(series, _COLORS[number % len(_COLORS)], slicer.vtkMRMLPlotSeriesNode.LineStyleSolid, 2.0)
        _own(node, chart, series)
    if has_slices(node):
        _add_marker(context, node, chart, table)


def _add_marker(context: SceneContext, node: Node, chart: Node, table: Table) -> None:
    """A vertical line where the slice on screen is: two points of a table of its own."""
    marker = context.add_node("vtkMRMLTableNode", f"{node.GetName()} slice on screen")
    marker.SetHideFromEditors(True)
    bounds = np.concatenate([_numbers(node, name) for name in table.y])
    bounds = bounds[np.isfinite(bounds)]
    low, high = (float(bounds.min()), float(bounds.max())) if bounds.size else (0.0, 1.0)
    _fill(marker, Table("marker", ("x", "y"), ((None, low), (None, high if high > low else low + 1.0))))
    node.SetNodeReferenceID(_MARKER, marker.GetID())
    series = context.add_node("vtkMRMLPlotSeriesNode", "slice on screen")
    series.SetAndObserveTableNodeID(marker.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    _draw(series, "404040", slicer_module().vtkMRMLPlotSeriesNode.LineStyleDash, 1.0)
    _own(node, chart, series)


def _draw(series: Node, color: str, line: int, width: float) -> None:
    series.SetPlotType(series.PlotTypeScatter)  # x and y of each point, joined by a line
    series.SetMarkerStyle(series.MarkerStyleNone)
    series.SetLineStyle(line)
    series.SetLineWidth(width)
    series.SetColor(*(int(color[at : at + 2], 16) / 255 for at in (0, 2, 4)))


def _own(node: Node, chart: Node, series: Node) -> None:
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    node.AddNodeReferenceID(_SERIES, series.GetID())


def _move_marker(node: Node, row: int | None) -> None:
    marker, x = node.GetNodeReference(_MARKER), _about(node).get("x")
    if not is_in_scene(marker) or not isinstance(x, str):
        return
    place = math.nan if row is None else float(_numbers(node, x)[row])
    column = marker.GetTable().GetColumnByName("x")
    for index in range(2):
        column.SetValue(index, place)
    column.DataChanged()
    marker.GetTable().Modified()


def _remove_plot(context: SceneContext, node: Node) -> None:
    series = [node.GetNthNodeReference(_SERIES, index) for index in range(node.GetNumberOfNodeReferences(_SERIES))]
    for other in (node.GetNodeReference(_CHART), *series, node.GetNodeReference(_MARKER)):
        if is_in_scene(other, context.scene):
            context.scene.RemoveNode(other)
    for role in (_CHART, _SERIES, _MARKER):
        node.RemoveNodeReferenceIDs(role)


# views --------------------------------------------------------------------------------------------------------


def show_in_views(context: SceneContext, node: Node) -> None:
    """Show a table, and its plot where it has one, in a layout with room for them."""
    slicer, selection = slicer_module(), _selection(context)
    layout = context.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    chart = chart_of(node)
    if selection is not None:
        if selection.GetAttribute(_USER_LAYOUT) is None:
            selection.SetAttribute(_USER_LAYOUT, str(layout.GetViewArrangement() if layout is not None else -1))
            selection.SetNodeReferenceID(_USER_TABLE, selection.GetActiveTableID())
            selection.SetNodeReferenceID(_USER_CHART, selection.GetActivePlotChartID())
        selection.SetActiveTableID(node.GetID())
        if chart is not None:
            selection.SetActivePlotChartID(chart.GetID())
        context.application_logic.PropagateTableSelection()
        context.application_logic.PropagatePlotChartSelection()
    if layout is not None:
        layouts = slicer.vtkMRMLLayoutNode
        wanted = layouts.SlicerLayoutFourUpTableView if chart is None else layouts.SlicerLayoutFourUpPlotTableView
        layout.SetViewArrangement(wanted)


def hide_from_views(context: SceneContext) -> None:
    """Put back the layout, table and plot that the user had before `show_in_views`."""
    selection = _selection(context)
    if selection is None or selection.GetAttribute(_USER_LAYOUT) is None:
        return
    layout = context.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    arrangement = int(selection.GetAttribute(_USER_LAYOUT))
    if layout is not None and arrangement >= 0:
        layout.SetViewArrangement(arrangement)
    for role, choose in ((_USER_TABLE, "SetActiveTableID"), (_USER_CHART, "SetActivePlotChartID")):
        user = selection.GetNodeReference(role)
        getattr(selection, choose)(user.GetID() if is_in_scene(user, context.scene) else None)
        selection.SetNodeReferenceID(role, None)
    selection.RemoveAttribute(_USER_LAYOUT)
    context.application_logic.PropagateTableSelection()
    context.application_logic.PropagatePlotChartSelection()


def are_shown(context: SceneContext) -> bool:
    """Whether `hide_from_views` has something to put back."""
    selection = _selection(context)
    return selection is not None and selection.GetAttribute(_USER_LAYOUT) is not None


def _selection(context: SceneContext) -> Node | None:
    return context.scene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")


# values -------------------------------------------------------------------------------------------------------


def _fill(node: Node, table: Table) -> None:
    import vtk

    node.RemoveAllColumns()
    slices = set(_PLACE) <= set(table.columns)
    if slices:
        marks = vtk.vtkStringArray()
        marks.SetName(ON_SCREEN)
        for _ in table.rows:
            marks.InsertNextValue(NO_MARK)
        node.AddColumn(marks)
    for name in table.columns:
        cells = table.column(name)
        words = any(isinstance(cell, str) for cell in cells)
        column = vtk.vtkStringArray() if words else vtk.vtkDoubleArray()
        column.SetName(name)
        for cell in cells:
            if words:
                column.InsertNextValue(_word(cell))
            else:
                column.InsertNextValue(math.nan if cell is None else float(cell))
        node.AddColumn(column)
    for name in table.columns:
        # With a description the node has a schema, and numbers are numbers again when the scene is loaded.
        node.SetColumnDescription(name, name)


def _word(cell: object) -> str:
    """A cell that Slicer's files of tables give back: they lose double quotes, and a row that begins with nothing."""
    return "-" if cell is None or cell == "" else str(cell).replace('"', "'")


def _numbers(node: Node, name: str) -> NDArray[np.float64]:
    column = node.GetTable().GetColumnByName(name)
    return np.array([column.GetVariantValue(row).ToDouble() for row in range(node.GetNumberOfRows())], dtype=float)


def _about(node: Node) -> dict[str, Any]:
    try:
        found = json.loads(node.GetAttribute(_ABOUT) or "{}")
    except json.JSONDecodeError:  # a scene file edited by hand
        return {}
    return found if isinstance(found, dict) else {}


def _nodes(context: SceneContext, class_name: str) -> list[Node]:
    scene = context.scene
    return [scene.GetNthNodeByClass(index, class_name) for index in range(scene.GetNumberOfNodesByClass(class_name))]
