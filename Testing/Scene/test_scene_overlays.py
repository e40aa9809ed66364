from __future__ import annotations

import json

import numpy as np
import pytest
from scene_support import MOVED, add_image, add_transform

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene import map_nodes, overlays
from LKSegmentLib.scene.volumes import grid_of, volume_of
from LKSegmentLib.volumes import Volume

PASSPORT = {
    "network": "lk_click",
    "unit": "none",
    "range": [0, 1],
    "neutral": 0.5,
    "sentence": 'A "gate"; 5³ & <10 mm\nend',
}


class Showing:
    """An image and the three slice views, Red with a foreground of the user's own."""

    def __init__(self, context):
        self.context = context
        self.image = add_image(context)
        self.pet = add_image(context, name="PET")
        self.composites = []
        for name in ("Red", "Green", "Yellow"):
            composite = context.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
            composite.SetLayoutName(name)
            composite.SetBackgroundVolumeID(self.image.GetID())
            self.composites.append(composite)
        self.red = self.composites[0]
        self.red.SetForegroundVolumeID(self.pet.GetID())
        self.red.SetForegroundOpacity(0.3)

    def node(self, name="attention", seed=0):
        values = np.random.default_rng(seed).random((6, 7, 8), dtype=np.float32)
        coarse = grid_of(self.image).with_spacing((1.8, 2.2, 5.0))
        return overlays.map_node(
            self.context, name, Volume(values[: coarse.shape[0]], coarse.ijk_to_ras), PASSPORT, self.image
        )

    def layers(self):
        return [
            (
                c.GetBackgroundVolumeID(),
                c.GetForegroundVolumeID(),
                round(c.GetForegroundOpacity(), 6),
                c.GetLabelVolumeID(),
            )
            for c in self.composites
        ]


@pytest.fixture
def showing(context):
    return Showing(context)


def test_hiding_puts_the_users_layers_back(showing):
    before = showing.layers()
    node = showing.node()
    overlays.show(showing.context, node, 0.6)
    assert overlays.is_shown(showing.context, node)
    assert [layer[1:3] for layer in showing.layers()] == [(node.GetID(), 0.6)] * 3
    assert [layer[0] for layer in showing.layers()] == [showing.image.GetID()] * 3
    overlays.set_opacity(showing.context, 0.2)
    overlays.show(showing.context, showing.node("another", 1), 0.9)
    overlays.hide(showing.context)
    assert showing.layers() == before
    assert not overlays.is_shown(showing.context, node)
    overlays.hide(showing.context)
    assert showing.layers() == before


def test_a_view_the_user_changed_meanwhile_is_left_alone(showing):
    overlays.show(showing.context, showing.node(), 0.6)
    other = add_image(showing.context, name="MR")
    showing.red.SetForegroundVolumeID(other.GetID())
    showing.red.SetForegroundOpacity(0.8)
    overlays.set_opacity(showing.context, 0.1)
    assert showing.red.GetForegroundOpacity() == 0.8
    overlays.hide(showing.context)
    assert (showing.red.GetForegroundVolumeID(), showing.red.GetForegroundOpacity()) == (other.GetID(), 0.8)
    assert showing.composites[1].GetForegroundVolumeID() is None


@pytest.mark.parametrize("clipped", [False, True])
def test_a_map_is_not_drawn_beyond_the_image_while_it_is_shown(showing, clipped):
    for composite in showing.composites:
        composite.SetClipToBackgroundVolume(clipped)
    overlays.show(showing.context, showing.node(), 0.6)
    assert all(composite.GetClipToBackgroundVolume() for composite in showing.composites)
    overlays.hide(showing.context)
    assert all(composite.GetClipToBackgroundVolume() is clipped for composite in showing.composites)


def test_deleted_overlays_and_deleted_user_volumes_are_survived(showing):
    node = showing.node()
    overlays.show(showing.context, node, 0.6)
    showing.context.scene.RemoveNode(node)
    overlays.hide(showing.context)
    assert showing.red.GetForegroundVolumeID() == showing.pet.GetID()
    overlays.show(showing.context, showing.node(), 0.6)
    showing.context.scene.RemoveNode(showing.pet)
    overlays.hide(showing.context)
    assert showing.red.GetForegroundVolumeID() is None


def test_more_overlays_go_into_further_layers_and_leave_with_the_first(showing):
    first, second = showing.node("a", 1), showing.node("b", 2)
    overlays.show(showing.context, first, 0.5, extra=[second])
    assert showing.red.GetNthLayerVolumeID(3) == second.GetID()
    assert showing.red.GetNthLayerOpacity(3) == 0.5
    overlays.set_opacity(showing.context, 0.25)
    assert showing.red.GetNthLayerOpacity(3) == 0.25
    overlays.hide(showing.context)
    assert showing.red.GetNthLayerVolumeID(3) is None
    assert showing.red.GetForegroundVolumeID() == showing.pet.GetID()


def test_the_map_is_exact_float32_with_its_passport_and_display(showing):
    values = np.linspace(0, 1, 5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    grid = grid_of(showing.image).with_spacing((2.0, 2.5, 6.0)).cropped((0, 0, 0), (5, 6, 7))
    node = overlays.map_node(showing.context, "gate", Volume(values, grid.ijk_to_ras), PASSPORT, showing.image)
    back = volume_of(node)
    assert np.array_equal(back.array, values)
    assert back.array.dtype == np.float32
    assert back.grid.matches(grid, 1e-6)
    passport = overlays.passport_of(node)
    assert {key: passport[key] for key in PASSPORT} == PASSPORT
    assert json.loads(node.GetAttribute(overlays.PASSPORT))["shown as"]["colors"] == "LKSegment sequential"
    display = node.GetDisplayNode()
    assert not display.GetAutoWindowLevel()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx(np.percentile(values, (2, 99.8)))
    assert display.GetApplyThreshold()
    assert display.GetColorNode().GetNumberOfColors() == 256
    assert showing.image.GetDisplayNode() is None or not showing.image.GetDisplayNode().GetApplyThreshold()


def test_a_second_map_of_one_name_updates_the_first(showing):
    first = showing.node(seed=1)
    count = showing.context.scene.GetNumberOfNodes()
    again = showing.node(seed=2)
    assert again is first
    assert showing.context.scene.GetNumberOfNodes() == count
    assert showing.node("other name") is not first


def test_a_map_moves_with_its_image(showing):
    node = showing.node()
    showing.image.SetAndObserveTransformNodeID(add_transform(showing.context, MOVED).GetID())
    again = showing.node()
    assert again is node
    assert node.GetParentTransformNode() is showing.image.GetParentTransformNode()


def test_windows_and_colours_fit_the_numbers():
    gate = np.linspace(0.2, 0.8, 1000)
    assert overlays.display_for(gate).window == pytest.approx((0.212, 0.7988), abs=1e-3)
    assert overlays.display_for(gate, window=(0, 1)) == overlays.MapDisplay((0.0, 1.0), 0.5)
    assert overlays.display_for(gate, window=(0, 1), threshold=0.1).threshold == 0.1
    signed = overlays.display_for(np.linspace(-3, 1, 1000), {"neutral": 0}, percentiles=(0, 100))
    assert signed == overlays.MapDisplay((-3.0, 3.0), None, "LKSegment diverging")
    nearly = overlays.display_for(np.linspace(1e-9, 0.6, 1000), {"range": [0.0, 1.0]}, percentiles=(0, 100))
    assert nearly.window == pytest.approx((0.0, 0.6))
    constant = overlays.display_for(np.full(10, 4.0))
    assert constant.window == (4.0, 5.0)
    assert overlays.display_for(np.ones(10), {"range": [0.0, 1.0]}).window == (0.0, 1.0)
    rare = overlays.display_for(np.where(np.arange(10000) == 7, 0.4, 0.1), {"range": [0.0, 1.0]})
    assert rare.window == (0.1, 0.4), "what differs is seen"
    assert (
        overlays.display_for(np.array([np.nan, np.inf])).window[0] < overlays.display_for(np.array([np.nan])).window[1]
    )
    for window in [(1, 1), (2, 1), (0, float("nan"))]:
        with pytest.raises(InputError, match="is empty"):
            overlays.display_for(gate, window=window)


def test_colour_tables_are_made_once_and_even(showing):
    table = overlays.color_table(showing.context, "LKSegment sequential")
    assert overlays.color_table(showing.context, "LKSegment sequential") is table
    color = [0.0] * 4
    brightness = []
    for index in range(0, 256, 5):
        table.GetColor(index, color)
        brightness.append(0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2])
    assert all(later > earlier for earlier, later in zip(brightness, brightness[1:], strict=False))
    with pytest.raises(InputError, match="no colour table 'rainbow'"):
        overlays.color_table(showing.context, "rainbow")


@pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
def test_an_opacity_that_is_none_is_refused(showing, opacity):
    with pytest.raises(InputError, match="from 0 to 1"):
        overlays.show(showing.context, showing.node(), opacity)


def test_a_damaged_passport_reads_as_none(showing):
    showing.image.SetAttribute(overlays.PASSPORT, "{broken")
    assert overlays.passport_of(showing.image) == {}
    assert overlays.passport_of(showing.pet) == {}


@pytest.mark.parametrize(
    ("window", "digits"),
    [((0.0, 1.0), 2), ((0.21, 0.8), 2), ((0.504, 0.50401), 6), ((-3.0, 3.0), 2), ((0.0, 0.0), 2), ((-1e-9, 1e-9), 2)],
)
def test_a_legend_tells_the_ends_of_its_window_apart(window, digits):
    assert map_nodes.digits_for(window) == digits
    low, high = window
    if high > low:
        assert len({f"{value:.{digits}g}" for value in (low, (low + high) / 2, high)}) == 3
