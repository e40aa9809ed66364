from __future__ import annotations

import numpy as np
import pytest
import slicer
from scene_support import EMPTY_BOX, OBLIQUE, Box, add_image, image_of, random_box, solid_box

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.segments import (
    SEGMENT_EDITOR_TAG,
    SegmentWriter,
    ensure_segment,
    ensure_segmentation,
    import_labels,
    mask_on,
    require_segment,
    segment_ids,
)
from LKSegmentLib.scene.terminology import label_entries
from LKSegmentLib.scene.volumes import add_volume_node, grid_of
from LKSegmentLib.volumes import Volume

SHAPE = (12, 14, 16)


class Scene:
    """An image, a segmentation with two segments, a writer, and the Segment Editor's settings."""

    def __init__(self, context):
        self.context = context
        self.image = add_image(context)
        self.grid = grid_of(self.image)
        self.node = ensure_segmentation(context, self.image, "organs")
        self.liver = ensure_segment(self.node, "liver")
        self.other = ensure_segment(self.node, "cyst")
        self.writer = SegmentWriter(context)
        self.settings = slicer.vtkMRMLSegmentEditorNode()
        self.settings.SetSingletonTag(SEGMENT_EDITOR_TAG)
        context.scene.AddNode(self.settings)
        self.sent = []
        modify = self.writer.logic.ModifySegmentByLabelmap

        class Spy:
            """The Segment Editor's logic, noting the extent of what is written."""

            def __getattr__(_, name):
                return getattr(logic, name)

            def ModifySegmentByLabelmap(_, node, segment, image, *rest):
                self.sent.append(image.GetExtent())
                modify(node, segment, image, *rest)

        logic = self.writer.logic
        self.writer.logic = Spy()

    def write(self, segment, box, mode="add"):
        return self.writer.write(self.node, segment, box, self.image, mode)

    def mask(self, segment):
        return mask_on(self.node, segment, self.grid)


@pytest.fixture
def organs(context):
    return Scene(context)


@pytest.mark.parametrize("seed", range(3))
def test_a_written_mask_comes_back_voxel_for_voxel(organs, seed):
    box = random_box(seed)
    assert organs.write(organs.liver, box)
    assert np.array_equal(organs.mask(organs.liver), box.full(SHAPE))
    assert not organs.mask(organs.other).any()


def test_modes_add_remove_and_replace(organs):
    first, second = random_box(1), random_box(2, lower=(3, 4, 5))
    a, b = first.full(SHAPE), second.full(SHAPE)
    organs.write(organs.liver, first)
    organs.write(organs.liver, second, "remove")
    assert np.array_equal(organs.mask(organs.liver), a & ~b)
    organs.write(organs.liver, second, "add")
    assert np.array_equal(organs.mask(organs.liver), a | b)
    organs.write(organs.liver, first, "replace")
    assert np.array_equal(organs.mask(organs.liver), a)
    organs.write(organs.liver, EMPTY_BOX, "replace")
    assert not organs.mask(organs.liver).any()
    with pytest.raises(InputError, match="add, remove or replace"):
        organs.write(organs.liver, first, "overwrite")


def test_each_write_is_one_undo_step_and_undo_is_exact(organs):
    first, second = random_box(1), random_box(2, lower=(4, 4, 4))
    assert not organs.writer.can_undo()
    organs.write(organs.other, solid_box((5, 5, 5), (3, 3, 3)))
    organs.write(organs.liver, first)
    before = organs.mask(organs.liver), organs.mask(organs.other)
    organs.write(organs.liver, second, "replace")
    after = organs.mask(organs.liver), organs.mask(organs.other)
    organs.writer.undo()
    assert np.array_equal(organs.mask(organs.liver), before[0])
    assert np.array_equal(organs.mask(organs.other), before[1])
    organs.writer.redo()
    assert np.array_equal(organs.mask(organs.liver), after[0])
    assert np.array_equal(organs.mask(organs.other), after[1])
    for _ in range(3):
        organs.writer.undo()
    assert not organs.mask(organs.liver).any()
    assert not organs.mask(organs.other).any()
    with pytest.raises(InputError, match="nothing to undo"):
        organs.writer.undo()


def test_a_write_that_changes_nothing_leaves_no_undo_step(organs):
    box = random_box(1)
    organs.write(organs.liver, box)
    organs.writer.undo()
    organs.writer.redo()
    organs.sent.clear()
    assert not organs.write(organs.liver, box)
    assert not organs.write(organs.liver, EMPTY_BOX)
    assert organs.sent == []
    organs.writer.undo()
    assert not organs.mask(organs.liver).any()


def test_only_the_changed_region_is_sent(organs):
    organs.write(organs.liver, solid_box((1, 1, 1), (8, 9, 10)))
    grown = np.ones((8, 9, 12), dtype=np.uint8)
    organs.sent.clear()
    organs.write(organs.liver, Box((1, 1, 1), grown))
    assert organs.sent == [(11, 12, 1, 9, 1, 8)]
    organs.sent.clear()
    holed = grown.copy()
    holed[2:4, 3, 5] = 0
    organs.write(organs.liver, Box((1, 1, 1), holed), "replace")
    assert organs.sent == [(6, 6, 4, 4, 3, 4)]


def test_the_users_own_undo_takes_over_where_it_saves_the_state(context):
    image = add_image(context)
    node = ensure_segmentation(context, image, "organs")
    liver = ensure_segment(node, "liver")
    asked = []
    writer = SegmentWriter(context, save_state=lambda segmentation: asked.append(segmentation) is None)
    writer.write(node, liver, random_box(0), image)
    assert asked == [node]
    assert not writer.can_undo()


@pytest.mark.parametrize(
    ("mode", "loses"), [("OverwriteAllSegments", True), ("OverwriteVisibleSegments", False), ("OverwriteNone", False)]
)
def test_overwrite_mode_of_the_segment_editor_is_honoured(organs, mode, loses):
    organs.write(organs.other, solid_box((2, 2, 2), (4, 4, 4)))
    organs.node.GetDisplayNode().SetSegmentVisibility(organs.other, False)
    organs.settings.SetOverwriteMode(getattr(organs.settings, mode))
    organs.write(organs.liver, solid_box((4, 4, 4), (5, 5, 5)))
    assert np.array_equal(organs.mask(organs.liver), solid_box((4, 4, 4), (5, 5, 5)).full(SHAPE))
    kept = solid_box((2, 2, 2), (4, 4, 4)).full(SHAPE)
    if loses:
        kept &= ~organs.mask(organs.liver)
    assert np.array_equal(organs.mask(organs.other), kept)


def test_an_editable_area_of_the_segment_editor_is_honoured(organs):
    organs.settings.SetOverwriteMode(organs.settings.OverwriteNone)
    organs.write(organs.other, solid_box((2, 2, 2), (5, 5, 5)))
    organs.settings.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    organs.settings.SetMaskSegmentID(organs.other)
    organs.write(organs.liver, solid_box((4, 4, 4), (6, 6, 6)))
    expected = solid_box((4, 4, 4), (6, 6, 6)).full(SHAPE) & organs.mask(organs.other)
    assert np.array_equal(organs.mask(organs.liver), expected)
    organs.settings.SetMaskSegmentID("gone")
    with pytest.raises(InputError, match="no segment 'gone'"):
        organs.write(organs.liver, random_box(0))


def test_an_intensity_range_of_the_segment_editor_is_honoured(organs):
    organs.settings.SetSourceVolumeIntensityMask(True)
    organs.settings.SetSourceVolumeIntensityMaskRange(0, 200)
    box = solid_box((1, 2, 3), (6, 7, 8))
    organs.write(organs.liver, box)
    values = image_of(OBLIQUE).array
    assert np.array_equal(organs.mask(organs.liver), box.full(SHAPE) & (values >= 0) & (values <= 200))


def test_writing_does_not_change_what_the_segment_editor_has_open(organs):
    elsewhere = ensure_segmentation(organs.context, organs.image, "elsewhere")
    organs.settings.SetAndObserveSegmentationNode(elsewhere)
    organs.write(organs.liver, random_box(0))
    assert organs.settings.GetSegmentationNode() is elsewhere


def test_unknown_segments_never_reach_slicer(organs):
    for bad in ("nope", "", None):
        with pytest.raises(InputError, match="has no segment"):
            organs.write(bad, random_box(0))
        with pytest.raises(InputError, match="has no segment"):
            mask_on(organs.node, bad, organs.grid)
    organs.node.GetSegmentation().RemoveSegment(organs.liver)
    with pytest.raises(InputError, match="It may have been deleted"):
        require_segment(organs.node, organs.liver)
    organs.context.scene.RemoveNode(organs.node)
    with pytest.raises(InputError, match="'organs' is no longer in the scene"):
        organs.write(organs.other, random_box(0))


def test_a_surface_segmentation_is_refused_with_what_to_do(organs):
    organs.write(organs.liver, solid_box((2, 2, 2), (5, 5, 5)))
    organs.node.CreateClosedSurfaceRepresentation()
    organs.node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(InputError, match="'organs' is stored as closed surface.*Make source"):
        organs.write(organs.liver, random_box(0))


def test_a_surface_beside_the_labelmap_follows_the_write(organs):
    organs.write(organs.liver, solid_box((2, 2, 2), (3, 3, 3)))
    organs.node.CreateClosedSurfaceRepresentation()
    before = organs.node.GetClosedSurfaceInternalRepresentation(organs.liver).GetNumberOfPoints()
    organs.write(organs.liver, solid_box((2, 2, 2), (7, 7, 7)))
    assert organs.node.GetClosedSurfaceInternalRepresentation(organs.liver).GetNumberOfPoints() > before


def test_ensure_finds_what_is_there_and_leaves_it_as_it_is(organs):
    segment = organs.node.GetSegmentation().GetSegment(organs.liver)
    segment.SetColor(0.1, 0.2, 0.3)
    assert ensure_segment(organs.node, "liver", color=(1.0, 0.0, 0.0)) == organs.liver
    assert segment.GetColor() == (0.1, 0.2, 0.3)
    assert ensure_segmentation(organs.context, organs.image, "organs") is organs.node
    another = add_image(organs.context, name="PET")
    assert ensure_segmentation(organs.context, another, "organs") is not organs.node
    assert ensure_segment(organs.node, "spleen", identifier="lk_spleen") == "lk_spleen"


def test_imported_labels_have_exact_voxels_names_colours_and_terminology(organs):
    organs.write(organs.liver, solid_box((2, 2, 2), (5, 5, 5)))
    mine = organs.mask(organs.liver)
    labels = np.random.default_rng(3).integers(0, 4, SHAPE).astype(np.uint16) * 100
    entries = label_entries(
        [
            {"name": "Left kidney", "value": 100},
            {"name": "tumour", "value": 200, "color": [255, 0, 128], "terminology": "SCT^4147007^Mass"},
            {"name": "liver", "value": 300},
            {"name": "absent", "value": 400},
        ]
    )
    ids = organs.writer.import_labels(organs.node, labels, entries, organs.grid.ijk_to_ras)
    assert ids == {100: "left_kidney", 200: "tumour", 300: "liver_1"}
    for value, identifier in ids.items():
        assert np.array_equal(organs.mask(identifier), labels == value)
    segmentation = organs.node.GetSegmentation()
    assert segmentation.GetSegment("left_kidney").GetName() == "Left kidney"
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in segmentation.GetSegment("left_kidney").GetTerminology()
    assert segmentation.GetSegment("tumour").GetColor() == pytest.approx((1.0, 0.0, 128 / 255))
    assert np.array_equal(organs.mask(organs.liver), mine)
    organs.writer.undo()
    assert segment_ids(organs.node) == [organs.liver, organs.other]
    assert np.array_equal(organs.mask(organs.liver), mine)


def test_hundreds_of_labels_share_one_layer(organs):
    labels = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE) % 300
    ids = import_labels(
        organs.node, labels, label_entries([f"part {n}" for n in range(1, 300)]), organs.grid.ijk_to_ras
    )
    assert len(ids) == 299
    assert np.array_equal(organs.mask(ids[299]), labels == 299)
    assert organs.node.GetSegmentation().GetNumberOfLayers() == 2  # the two segments that were there have one
    assert import_labels(organs.node, np.zeros(SHAPE, np.uint16), label_entries(["a"]), np.eye(4)) == {}


def test_a_big_mask_is_cropped_to_what_it_holds(context):
    shape = (60, 128, 128)
    image = add_volume_node(context, Volume(np.zeros(shape, np.int16), OBLIQUE), "large")
    node = ensure_segmentation(context, image, "result")
    segment = ensure_segment(node, "spleen")
    mask = np.zeros(shape, np.uint8)
    mask[20:30, 50:60, 70:80] = 1
    SegmentWriter(context).write(node, segment, Box((0, 0, 0), mask), image)
    held = node.GetSegmentation().GetSegment(segment).GetRepresentation("Binary labelmap")
    assert held.GetExtent() == (70, 79, 50, 59, 20, 29)


def test_two_writers_keep_their_own_undo(organs):
    organs.write(organs.liver, random_box(1))
    elsewhere = ensure_segmentation(organs.context, organs.image, "elsewhere")
    second = SegmentWriter(organs.context)
    second.write(elsewhere, ensure_segment(elsewhere, "spleen"), random_box(2), organs.image)
    assert organs.writer.can_undo()
    organs.writer.undo()
    assert not organs.mask(organs.liver).any()
    assert mask_on(elsewhere, "spleen", organs.grid).any()


def test_a_writer_outlives_its_scene(organs):
    organs.write(organs.liver, random_box(1))
    organs.context.scene.Clear(0)
    assert not organs.writer.can_undo()
    image = add_image(organs.context)
    node = ensure_segmentation(organs.context, image, "next patient")
    segment = ensure_segment(node, "liver")
    organs.writer.write(node, segment, random_box(3), image)
    assert np.array_equal(mask_on(node, segment, grid_of(image)), random_box(3).full(SHAPE))
    organs.writer.undo()
    assert not mask_on(node, segment, grid_of(image)).any()
