"""Two overlays at a time, in the foreground and a further layer, and the user's layers put back exactly."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from scene_support import add_image

from LKSegmentLib.errors import InputError
from LKSegmentLib.inspection.maps import CASE
from LKSegmentLib.scene import bundle, layout, map_nodes, overlays
from LKSegmentLib.scene.volumes import volume_of
from LKSegmentLib.volumes import Volume

GATE = {"unit": "none", "range": [0.0, 1.0], "neutral": 0.5}
SIGNED = {"unit": "logit", "range": [None, None], "neutral": 0.0}


class Views:
    """An image in the Red view, with a foreground, a label and two further layers of the user's own."""

    def __init__(self, context):
        self.context = context
        self.image = add_image(context)
        self.red = context.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
        self.red.SetLayoutName("Red")
        self.users = [add_image(context, name=name) for name in ("PET", "labels", "dose", "MR")]
        self.red.SetBackgroundVolumeID(self.image.GetID())
        self.red.SetForegroundVolumeID(self.users[0].GetID())
        self.red.SetForegroundOpacity(0.3)
        self.red.SetLabelVolumeID(self.users[1].GetID())
        self.red.SetLabelOpacity(0.7)
        self.red.SetCompositing(self.red.Add)
        self.red.SetClipToBackgroundVolume(False)
        for place, user in enumerate(self.users[2:], start=3):
            self.red.SetNthLayerVolumeID(place, user.GetID())  # their opacity is never set: Slicer shows them whole
        self.maps = [self.map(name, seed) for seed, name in enumerate(("a", "b", "c"))]

    def map(self, name, seed, passport=GATE, values=None):
        values = np.random.default_rng(seed).random((4, 5, 6), dtype=np.float32) if values is None else values
        volume = Volume(values, volume_of(self.image).ijk_to_ras)
        return map_nodes.map_node(self.context, name, volume, passport, self.image)

    def further(self):
        places = range(3, 3 + self.red.GetNumberOfAdditionalLayers())
        return [(self.red.GetNthLayerVolume(n).GetName(), self.red.GetNthLayerOpacity(n)) for n in places]

    def everything(self):
        red = self.red
        volumes = (red.GetBackgroundVolumeID(), red.GetForegroundVolumeID(), red.GetLabelVolumeID())
        opacities = (red.GetForegroundOpacity(), red.GetLabelOpacity())
        return volumes, opacities, red.GetCompositing(), red.GetClipToBackgroundVolume(), self.further()


@pytest.fixture
def views(context):
    return Views(context)


@pytest.mark.parametrize("back", [overlays.hide, overlays.restore])
def test_two_overlays_lie_over_the_users_layers_and_go_without_a_trace(views, back):
    before = views.everything()
    assert views.further() == [("dose", 1.0), ("MR", 1.0)]
    first, second, third = views.maps
    overlays.show(views.context, first, 0.6, [second], 0.25)
    assert views.red.GetForegroundVolumeID() == first.GetID() and views.red.GetForegroundOpacity() == 0.6
    assert views.further() == [("dose", 1.0), ("MR", 1.0), (second.GetName(), 0.25)], "theirs stay as they were"
    assert views.red.GetCompositing() == views.red.Alpha, "maps are laid over the image, not added to it"
    assert overlays.is_shown(views.context, first) and overlays.is_shown(views.context, second)
    overlays.set_opacity(views.context, 0.5, 0.75)
    assert (views.red.GetForegroundOpacity(), views.further()[-1][1]) == (0.5, 0.75)
    overlays.show(views.context, third, 0.4, [first])
    assert views.further()[2:] == [(first.GetName(), 0.4)]
    overlays.show(views.context, third, 0.4)
    assert [name for name, _ in views.further()] == ["dose", "MR"]
    overlays.show(views.context, third, 0.4, [second])
    assert overlays.remembers(views.context)
    back(views.context)
    assert views.everything() == before
    assert not overlays.remembers(views.context) and not overlays.is_shown(views.context, second)
    views.red.SetNthLayerVolumeID(5, views.users[0].GetID())
    assert views.further()[-1] == ("PET", 1.0), "a layer the user adds now is as fresh as it would have been"


def test_hiding_leaves_alone_what_the_user_changed_and_restoring_does_not(views):
    before = views.everything()
    other = add_image(views.context, name="CT 2")

    def change():
        overlays.show(views.context, views.maps[0], 0.6, [views.maps[1]])
        views.red.SetBackgroundVolumeID(other.GetID())
        views.red.SetForegroundVolumeID(other.GetID())
        views.red.SetNthLayerOpacity(3, 0.1)
        views.red.SetNthLayerVolumeID(6, other.GetID())
        views.red.SetNthLayerOpacity(6, 0.35)
        views.red.SetLabelOpacity(0.05)

    change()
    overlays.hide(views.context)
    volumes, opacities, _, _, further = views.everything()
    assert volumes[:2] == (other.GetID(),) * 2 and opacities[1] == 0.05
    assert further == [("dose", 0.1), ("MR", 1.0), ("CT 2", 0.35)]
    views.red.SetNthLayerVolumeID(5, None)
    views.red.SetNthLayerOpacity(3, 1.0)
    views.red.SetBackgroundVolumeID(before[0][0])
    views.red.SetForegroundVolumeID(before[0][1])
    views.red.SetForegroundOpacity(0.3)
    views.red.SetLabelOpacity(0.7)
    assert views.everything() == before
    change()
    overlays.restore(views.context)
    assert views.everything() == before


def test_deleted_volumes_are_survived_in_every_layer(views):
    overlays.show(views.context, views.maps[0], 0.6, [views.maps[1]])
    views.context.scene.RemoveNode(views.maps[1])
    views.context.scene.RemoveNode(views.users[0])
    overlays.set_opacity(views.context, 0.2)
    overlays.restore(views.context)
    assert views.red.GetForegroundVolumeID() is None
    assert [name for name, _ in views.further()] == ["dose", "MR"]


def test_opacities_of_further_layers_survive_a_saved_scene(views, tmp_path):
    """Slicer does not save them: a second overlay would cover the image wholly."""
    first, second, _ = views.maps
    overlays.show(views.context, first, 0.6, [second], 0.25)
    views.red.SetNthLayerOpacity(3, 0.45)
    overlays.note_opacities(views.context)
    before = views.everything()
    back = bundle.read_mrb(bundle.write_mrb(views.context, tmp_path / "scene.mrb"))
    again = object.__new__(Views)
    again.context, again.red = back, back.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert again.further()[-1] == (second.GetName(), 1.0), "Slicer saves them now: note_opacities may go"
    overlays.restore_opacities(back)
    assert again.further() == before[-1] and again.further()[0] == ("dose", 0.45)
    overlays.restore(back)
    assert again.further() == [("dose", 1.0), ("MR", 1.0)]
    assert back.scene.GetNodeByID(again.red.GetForegroundVolumeID()).GetName() == "PET"
    assert again.red.GetForegroundOpacity() == pytest.approx(0.3) and again.red.GetCompositing() == again.red.Add


def test_a_slicer_without_further_layers_shows_one(views, monkeypatch):
    old = type("Old", (), {})()
    monkeypatch.setattr(overlays, "_composites", lambda context: [old])
    assert not overlays.has_further_layers(views.context)
    with pytest.raises(InputError, match="Only one overlay .* need Slicer 5.10"):
        overlays.show(views.context, views.maps[0], 0.5, [views.maps[1]])


def test_damaged_notes_are_survived(views):
    views.red.SetAttribute("LKSegment.userLayers", "{broken")
    views.red.SetAttribute("LKSegment.furtherOpacities", "[1]")
    before = views.everything()
    overlays.restore_opacities(views.context)
    overlays.hide(views.context)
    overlays.restore(views.context)
    assert views.everything() == before


# How they look ------------------------------------------------------------------------------------------------


def test_the_scale_is_of_the_whole_case_or_of_the_quantity(views):
    values = np.linspace(0.2, 0.8, 1000, dtype=np.float32).reshape(10, 10, 10)
    passport = map_nodes.passport_of(views.map("ramp", 0, values=values))
    assert passport[CASE]["least"] == pytest.approx(0.2) and passport[CASE]["most"] == pytest.approx(0.8)
    case = map_nodes.display_from(passport)
    assert case.window == pytest.approx((0.212, 0.7988), abs=1e-3)
    assert case.threshold == pytest.approx(sum(case.window) / 2)
    whole = map_nodes.display_from(passport, "range", 0.25)
    assert whole.window == (0.0, 1.0) and whole.threshold == 0.25
    assert map_nodes.display_from(passport, share=0.0).threshold is None
    open_ended = map_nodes.display_from({**passport, "range": [0.0, None]}, "range", 0.0)
    assert open_ended.window == pytest.approx((0.0, 0.8))
    with pytest.raises(InputError, match="does not say how its values are distributed"):
        map_nodes.display_from({"unit": "none"})


def test_a_map_with_a_sign_is_shown_whole_around_its_neutral_value(views):
    node = views.map("signed", 0, SIGNED, np.linspace(-3, 1, 1000, dtype=np.float32).reshape(10, 10, 10))
    shown = map_nodes.display_from(map_nodes.passport_of(node), share=0.9)
    assert shown.table == map_nodes.DIVERGING and shown.threshold is None
    assert shown.window[0] == -shown.window[1]


def test_the_passport_follows_what_is_shown_and_the_percentiles_of_the_worker_are_believed(views):
    told = {**GATE, CASE: {"least": 0.0, "low": 0.1, "high": 0.9, "most": 1.0}}
    node = views.map("told", 0, told)
    assert map_nodes.passport_of(node)["shown as"]["window"] == [0.1, 0.9]
    display = map_nodes.display_from(told, "range", 0.0)
    map_nodes.set_display(views.context, node, map_nodes.MapDisplay(display.window, None, map_nodes.SECOND))
    passport = map_nodes.passport_of(node)
    assert passport["shown as"] == {"window": [0.0, 1.0], "transparent below": None, "colors": map_nodes.SECOND}
    assert not node.GetDisplayNode().GetApplyThreshold()
    assert passport["unit"] == "none" and passport[CASE] == told[CASE]


def test_maps_are_found_by_their_image_and_read_back(views):
    other = add_image(views.context, name="other")
    assert map_nodes.maps_of(views.context, views.image) == views.maps
    assert map_nodes.maps_of(views.context, other) == []
    found = map_nodes.map_of(views.maps[0])
    assert found.name == "a" and found.volume.array.shape == (4, 5, 6) and found.passport["unit"] == "none"


def test_the_legend_belongs_to_the_foreground_as_slicer_draws_no_other(views):
    legend = map_nodes.add_legend(views.maps[0], "a gate", [layout.slice_node(views.context, "Red").GetID()])
    assert legend.IsA("vtkMRMLColorLegendDisplayNode") and legend.GetTitleText() == "a gate"
    assert map_nodes.add_legend(views.maps[0], "again") is legend


@pytest.mark.parametrize("writeable", [True, False])
def test_voxels_of_maps_are_kept_alive_by_the_scene_alone(views, writeable):
    """They are not copied, as a copy of a large map would hold Slicer up."""

    def made(seed):
        values = np.random.default_rng(seed).random((20, 30, 40), dtype=np.float32)
        return values if writeable else np.frombuffer(values.tobytes(), np.float32).reshape(values.shape)

    nodes = [views.map(f"map {seed}", 0, values=made(seed)) for seed in range(4)]
    gc.collect()
    overwritten = [np.full((20, 30, 40), 7.0, np.float32) for _ in range(40)]
    for seed, node in enumerate(nodes):
        assert np.array_equal(volume_of(node).array, made(seed))
    assert len(overwritten) == 40
    assert not nodes[0].GetDisplayNode().GetAutoWindowLevel(), "Slicer would look at every voxel"
