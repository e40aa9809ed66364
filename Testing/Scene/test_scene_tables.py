from __future__ import annotations

import math

import numpy as np
import pytest
import slicer
from scene_support import add_image, rotation

from LKSegmentLib.inspection import Table
from LKSegmentLib.scene import bundle, layout, tables
from LKSegmentLib.scene.geometry import to_vtk_matrix

PLACES = tuple((0.0, 0.0, 3.0 * number) for number in range(5))
SLICES = Table(
    "kernel weights, stage 1",
    ("slice", "along the slice axis (mm)", "R (mm)", "A (mm)", "S (mm)", "share of 3²", "share of 5²"),
    tuple((n, place[2], *place, 0.1 * n, 1 - 0.1 * n) for n, place in enumerate(PLACES)),
    "along the slice axis (mm)",
    ("share of 3²", "share of 5²"),
    {"unit": "none (a share)", "sentence": "One number for a slice."},
)
WORDS = Table(
    "means",
    ("segment", "mean inside"),
    (("liver", 0.5), ('the "other", one', None), (None, 0.25)),
    None,
    (),
    {"unit": "x"},
)
KINDS = ("vtkMRMLTableNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode")


def counts(context):
    return [context.scene.GetNumberOfNodesByClass(kind) for kind in KINDS]


def axial(context, offset):
    node = layout.slice_node(context, "Red")
    node.SetSliceOffset(offset)
    return node


@pytest.fixture
def image(context):
    return add_image(context, np.eye(4))


def test_a_curve_becomes_a_table_and_a_plot(context, image):
    node = tables.add_table(context, SLICES, image)
    assert node.GetNumberOfRows() == 5 and node.GetCellText(3, node.GetColumnIndex("share of 3²")).startswith("0.3")
    assert tables.passport_of(node) == SLICES.passport
    assert tables.tables_of(context, image) == [node]
    chart = tables.chart_of(node)
    assert chart.GetTitle() == SLICES.name and chart.GetXAxisTitle() == SLICES.x
    drawn = [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [one.GetYColumnName() for one in drawn] == ["share of 3²", "share of 5²", "y"]
    assert all(one.GetXColumnName() == SLICES.x and one.GetTableNode() is node for one in drawn[:2])


def test_words_become_a_table_without_a_plot_and_missing_values_stay_missing(context, image):
    node = tables.add_table(context, WORDS, image)
    assert tables.chart_of(node) is None
    assert node.GetCellText(0, 0) == "liver" and math.isnan(node.GetTable().GetColumnByName("mean inside").GetValue(1))
    assert tables.mark_slice(node, [axial(context, 0.0)]) is None


def test_tables_are_replaced_and_removed_without_a_trace(context, image):
    other = add_image(context, name="other")
    before = counts(context)
    node = tables.add_table(context, SLICES, image)
    full = counts(context)
    again = tables.add_table(
        context, Table(SLICES.name, SLICES.columns, SLICES.rows[:2], SLICES.x, SLICES.y[:1]), image
    )
    assert again is node and node.GetNumberOfRows() == 2
    assert counts(context) == [full[0], full[1], full[2] - 1]
    beside = tables.add_table(context, WORDS, other)
    assert tables.remove_tables(context, image) == 1
    assert tables.tables_of(context, other) == [beside]
    tables.remove_tables(context, other)
    assert counts(context) == before


def test_what_slicers_undo_takes_back_leaves_tables_alone(context, image):
    scene = context.scene
    scene.SetUndoOn()
    node = tables.add_table(context, SLICES, image)
    scene.SaveStateForUndo()
    tables.add_table(context, Table(SLICES.name, SLICES.columns, SLICES.rows[:3], SLICES.x, SLICES.y), image)
    scene.Undo()
    assert tables.tables_of(context, image) == [node] and node.GetNumberOfRows() == 3
    assert tables.chart_of(node).GetNumberOfPlotSeriesNodes() == 3


@pytest.mark.parametrize(
    ("offset", "row"), [(0.0, 0), (5.9, 2), (7.4, 2), (7.6, 3), (13.4, 4), (13.6, None), (-9, None)]
)
def test_the_row_of_the_slice_on_screen_is_marked(context, image, offset, row):
    node = tables.add_table(context, SLICES, image)
    assert tables.mark_slice(node, [layout.slice_node(context, "Green"), axial(context, offset)]) == row
    marks = [node.GetCellText(index, node.GetColumnIndex(tables.ON_SCREEN)) for index in range(5)]
    assert marks == [tables.MARK if index == row else tables.NO_MARK for index in range(5)]
    chart = tables.chart_of(node)
    line = chart.GetNthPlotSeriesNode(2).GetTableNode().GetTable().GetColumnByName("x")
    assert (line.GetValue(0), line.GetValue(1)) == pytest.approx(
        (math.nan if row is None else 3.0 * row,) * 2, nan_ok=True
    )


def test_a_mark_moves_and_goes(context, image):
    node = tables.add_table(context, SLICES, image)
    for offset, row in ((3.0, 1), (9.0, 3), (90.0, None)):
        tables.mark_slice(node, [axial(context, offset)])
        marks = [node.GetCellText(index, node.GetColumnIndex(tables.ON_SCREEN)) for index in range(5)]
        assert marks == [tables.MARK if index == row else tables.NO_MARK for index in range(5)]


def test_slices_of_an_oblique_volume_are_found_in_an_oblique_view_and_in_no_other(context, image):
    turned = rotation(40, (1.0, 0.2, 0.1))
    places = [(turned[:3, :3] @ np.array(place)).tolist() for place in PLACES]
    rows = tuple((n, 3.0 * n, *place, 0.1, 0.9) for n, place in enumerate(places))
    node = tables.add_table(context, Table("t", SLICES.columns, rows, SLICES.x, SLICES.y), image)
    red = axial(context, 3.0)
    assert tables.mark_slice(node, [red]) is None, "40 degrees apart"
    matrix = turned.copy()
    matrix[:3, 3] = turned[:3, :3] @ np.array([50.0, -20.0, 9.3])
    red.GetSliceToRAS().DeepCopy(to_vtk_matrix(matrix))
    assert tables.mark_slice(node, [red]) == 3


def test_views_get_back_what_they_showed(context, image):
    mine = context.add_node("vtkMRMLTableNode", "mine")
    selection = context.scene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")
    selection.SetActiveTableID(mine.GetID())
    arrangement = context.add_node("vtkMRMLLayoutNode")
    arrangement.SetViewArrangement(arrangement.SlicerLayoutConventionalView)
    first, second = tables.add_table(context, SLICES, image), tables.add_table(context, WORDS, image)
    tables.show_in_views(context, first)
    assert selection.GetActiveTableID() == first.GetID()
    assert selection.GetActivePlotChartID() == tables.chart_of(first).GetID()
    assert arrangement.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView
    tables.show_in_views(context, second)
    assert arrangement.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView
    assert tables.are_shown(context)
    tables.hide_from_views(context)
    assert selection.GetActiveTableID() == mine.GetID() and selection.GetActivePlotChartID() is None
    assert arrangement.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    assert not tables.are_shown(context)
    tables.hide_from_views(context)


def test_tables_come_back_with_the_scene_as_numbers(context, image, tmp_path):
    tables.mark_slice(tables.add_table(context, SLICES, image), [axial(context, 3.0)])
    tables.add_table(context, WORDS, image)
    back = bundle.read_mrb(bundle.write_mrb(context, tmp_path / "scene.mrb"))
    volume = back.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    curve, words = tables.tables_of(back, volume)
    assert tables.passport_of(curve) == SLICES.passport
    assert tables._numbers(curve, "share of 5²") == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6])
    assert [words.GetCellText(row, 0) for row in range(3)] == ["liver", "the 'other', one", "-"]
    assert tables._numbers(words, "mean inside") == pytest.approx([0.5, math.nan, 0.25], nan_ok=True)
    assert tables.mark_slice(curve, [axial(back, 9.0)]) == 3
    chart = tables.chart_of(curve)
    assert chart.GetNumberOfPlotSeriesNodes() == 3
    assert chart.GetNthPlotSeriesNode(0).GetTableNode() is curve
    before = len(tables.tables_of(back, volume))
    tables.add_table(back, SLICES, volume)
    assert len(tables.tables_of(back, volume)) == before
    tables.remove_tables(back, volume)
    assert [back.scene.GetNumberOfNodesByClass(kind) for kind in KINDS] == [0, 0, 0]
