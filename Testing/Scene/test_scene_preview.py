from __future__ import annotations

import numpy as np
import pytest
import slicer
from scene_support import EMPTY_BOX, MOVED, Box, add_image, add_transform, random_box, solid_box

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene import geometry
from LKSegmentLib.scene.preview import ClickPreview, remove_left_over_previews
from LKSegmentLib.scene.segments import (
    SEGMENT_EDITOR_TAG,
    SegmentWriter,
    ensure_segment,
    ensure_segmentation,
    mask_on,
    segment_ids,
)
from LKSegmentLib.scene.volumes import add_volume_node, grid_of
from LKSegmentLib.volumes import Volume

SHAPE = (12, 14, 16)


class Clicking:
    """An image, a target with a segment the user made, and a preview."""

    def __init__(self, context):
        self.context = context
        self.image = add_image(context)
        self.grid = grid_of(self.image)
        self.target = ensure_segmentation(context, self.image, "organs")
        self.liver = ensure_segment(self.target, "liver")
        self.writer = SegmentWriter(context)
        self.writer.write(self.target, self.liver, solid_box((1, 1, 1), (4, 4, 4)), self.image)
        self.preview = ClickPreview(context)

    def shown(self):
        return mask_on(self.preview.node, segment_ids(self.preview.node)[0], self.grid)

    def fingerprint(self):
        """Everything a preview must not change in the target."""
        segmentation = self.target.GetSegmentation()
        parts = []
        for identifier in segment_ids(self.target):
            segment = segmentation.GetSegment(identifier)
            image = segment.GetRepresentation("Binary labelmap")
            parts.append((identifier, segment.GetName(), segment.GetColor(), segment.GetLabelValue()))
            parts.append((image.GetExtent(), geometry.image_array(image).tobytes(), image.GetMTime()))
        return parts, segmentation.GetNumberOfLayers(), segmentation.GetMTime(), self.writer.can_redo()


@pytest.fixture
def clicking(context):
    return Clicking(context)


def spy_on_extents(preview, monkeypatch):
    sent = []
    send = preview._send

    def spy(node, modification, lower, change, matrix):
        sent.append((modification, tuple(int(start) for start in lower), change.shape))
        send(node, modification, lower, change, matrix)

    monkeypatch.setattr(preview, "_send", spy)
    return sent


def test_a_preview_follows_each_mask_exactly(clicking):
    for seed, lower in enumerate([(2, 3, 4), (3, 2, 4), (0, 0, 0), (7, 8, 9)]):
        box = random_box(seed, lower)
        clicking.preview.show(box, clicking.image)
        assert np.array_equal(clicking.shown(), box.full(SHAPE))
    clicking.preview.show(EMPTY_BOX, clicking.image)
    assert not clicking.shown().any()
    assert clicking.preview.is_empty
    clicking.preview.show(random_box(9), clicking.image)
    assert np.array_equal(clicking.shown(), random_box(9).full(SHAPE))


def test_only_the_changed_region_is_sent(clicking, monkeypatch):
    sent = spy_on_extents(clicking.preview, monkeypatch)
    clicking.preview.show(solid_box((1, 1, 1), (9, 9, 9)), clicking.image)
    assert sent == [("Add", (1, 1, 1), (9, 9, 9))]
    sent.clear()
    changed = np.ones((9, 9, 11), np.uint8)
    changed[3, 4:6, 2] = 0
    clicking.preview.show(Box((1, 1, 1), changed), clicking.image)
    assert sent == [("Remove", (4, 5, 3), (1, 2, 1)), ("Add", (1, 1, 10), (9, 9, 2))]
    sent.clear()
    clicking.preview.show(Box((1, 1, 1), changed), clicking.image)
    assert sent == []


def test_the_preview_leaves_the_target_bit_for_bit_alone(clicking):
    clicking.writer.write(clicking.target, clicking.liver, random_box(4), clicking.image)
    clicking.writer.undo()
    before = clicking.fingerprint()
    assert before[-1], "there is something to redo, which a preview must not forget"
    nodes = clicking.context.scene.GetNumberOfNodes()
    for seed in range(3):
        clicking.preview.show(random_box(seed), clicking.image)
    assert clicking.fingerprint() == before
    clicking.preview.cancel()
    assert clicking.fingerprint() == before
    assert clicking.context.scene.GetNumberOfNodes() == nodes
    assert clicking.preview.node is None


def test_accepting_is_one_undo_step_and_removes_the_preview(clicking):
    mine = mask_on(clicking.target, clicking.liver, clicking.grid)
    box = random_box(5)
    clicking.preview.show(random_box(4), clicking.image)
    clicking.preview.show(box, clicking.image)
    assert clicking.preview.accept(clicking.writer, clicking.target, clicking.liver, clicking.image)
    assert clicking.preview.node is None
    assert np.array_equal(mask_on(clicking.target, clicking.liver, clicking.grid), mine | box.full(SHAPE))
    clicking.writer.undo()
    assert np.array_equal(mask_on(clicking.target, clicking.liver, clicking.grid), mine)
    assert segment_ids(clicking.target) == [clicking.liver]


def test_accepting_in_place_of_the_segment(clicking):
    box = random_box(5)
    clicking.preview.show(box, clicking.image)
    clicking.preview.accept(clicking.writer, clicking.target, clicking.liver, clicking.image, mode="replace")
    assert np.array_equal(mask_on(clicking.target, clicking.liver, clicking.grid), box.full(SHAPE))


def test_accepting_honours_masks_and_overwrite_mode(clicking):
    settings = slicer.vtkMRMLSegmentEditorNode()
    settings.SetSingletonTag(SEGMENT_EDITOR_TAG)
    clicking.context.scene.AddNode(settings)
    settings.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    settings.SetMaskSegmentID(clicking.liver)
    settings.SetOverwriteMode(settings.OverwriteNone)
    lesion = ensure_segment(clicking.target, "lesion")
    clicking.preview.show(solid_box((3, 3, 3), (6, 6, 6)), clicking.image)
    clicking.preview.accept(clicking.writer, clicking.target, lesion, clicking.image)
    liver = solid_box((1, 1, 1), (4, 4, 4)).full(SHAPE)
    assert np.array_equal(
        mask_on(clicking.target, lesion, clicking.grid), liver & solid_box((3, 3, 3), (6, 6, 6)).full(SHAPE)
    )
    assert np.array_equal(mask_on(clicking.target, clicking.liver, clicking.grid), liver)


def test_what_the_user_paints_into_the_preview_is_accepted(clicking):
    clicking.preview.show(solid_box((2, 2, 2), (3, 3, 3)), clicking.image)
    own = SegmentWriter(clicking.context)
    painted = solid_box((7, 7, 7), (2, 2, 2))
    own.write(clicking.preview.node, segment_ids(clicking.preview.node)[0], painted, clicking.image)
    other = ensure_segment(clicking.target, "other")
    clicking.preview.accept(clicking.writer, clicking.target, other, clicking.image)
    expected = solid_box((2, 2, 2), (3, 3, 3)).full(SHAPE) | painted.full(SHAPE)
    assert np.array_equal(mask_on(clicking.target, other, clicking.grid), expected)


def test_a_refused_accept_keeps_the_preview(clicking):
    box = random_box(6)
    clicking.preview.show(box, clicking.image)
    with pytest.raises(InputError, match="has no segment 'gone'"):
        clicking.preview.accept(clicking.writer, clicking.target, "gone", clicking.image)
    clicking.context.scene.RemoveNode(clicking.target)
    with pytest.raises(InputError, match="'organs' is no longer in the scene"):
        clicking.preview.accept(clicking.writer, clicking.target, clicking.liver, clicking.image)
    assert np.array_equal(clicking.shown(), box.full(SHAPE))
    elsewhere = ensure_segmentation(clicking.context, clicking.image, "elsewhere")
    segment = ensure_segment(elsewhere, "liver")
    clicking.preview.accept(clicking.writer, elsewhere, segment, clicking.image)
    assert np.array_equal(mask_on(elsewhere, segment, clicking.grid), box.full(SHAPE))


def test_deleted_and_renamed_nodes_are_survived(clicking):
    preview, image = clicking.preview, clicking.image
    with pytest.raises(InputError, match="no preview to accept"):
        preview.accept(clicking.writer, clicking.target, clicking.liver, image)
    preview.show(random_box(1), image)
    preview.node.SetName("mine now")
    preview.show(random_box(2), image)
    assert preview.node.GetName() == "mine now"
    preview.node.GetSegmentation().RemoveAllSegments()
    assert preview.is_empty
    preview.show(random_box(3), image)
    assert np.array_equal(clicking.shown(), random_box(3).full(SHAPE))
    clicking.context.scene.RemoveNode(preview.node)
    assert preview.node is None
    assert preview.is_empty
    preview.show(random_box(3), image)
    clicking.context.scene.RemoveNode(image)
    assert preview.accept(clicking.writer, clicking.target, clicking.liver, image)  # the image is gone, the mask is not
    with pytest.raises(InputError, match="'CT' is no longer in the scene"):
        preview.show(random_box(1), image)
    clicking.context.scene.Clear(0)
    preview.cancel()
    assert preview.node is None


def test_another_image_gets_a_preview_of_its_own(clicking):
    other = add_image(clicking.context, np.diag([2.0, 2.0, 2.0, 1.0]), "PET", shape=(20, 20, 20))
    clicking.preview.show(random_box(1), clicking.image)
    clicking.preview.show(random_box(2, (14, 13, 12)), other)
    found = mask_on(clicking.preview.node, segment_ids(clicking.preview.node)[0], grid_of(other))
    assert np.array_equal(found, random_box(2, (14, 13, 12)).full((20, 20, 20)))


def test_the_preview_stays_with_an_image_that_is_moved(clicking):
    clicking.preview.show(random_box(1), clicking.image)
    clicking.image.SetAndObserveTransformNodeID(add_transform(clicking.context, MOVED).GetID())
    clicking.preview.show(random_box(2), clicking.image)
    found = mask_on(clicking.preview.node, segment_ids(clicking.preview.node)[0], grid_of(clicking.image))
    assert np.array_equal(found, random_box(2).full(SHAPE))


def test_a_mask_for_another_image_size_is_refused(clicking):
    with pytest.raises(InputError, match="beyond the volume's"):
        clicking.preview.show(random_box(1, lower=(10, 3, 4)), clicking.image)
    with pytest.raises(InputError, match="beyond the volume's"):
        clicking.preview.show(random_box(1, lower=(-1, 3, 4)), clicking.image)


def test_a_preview_is_not_saved_and_leftovers_are_cleaned_away(clicking):
    clicking.preview.show(random_box(1), clicking.image)
    assert not clicking.preview.node.GetSaveWithScene()
    assert remove_left_over_previews(clicking.context) == 1
    assert clicking.preview.node is None
    assert clicking.target.GetScene() is clicking.context.scene


def test_a_preview_on_a_large_image_touches_only_its_box(context):
    shape = (160, 256, 256)
    image = add_volume_node(context, Volume(np.zeros(shape, np.int16), np.diag([0.7, 0.7, 1.5, 1.0])), "large")
    preview = ClickPreview(context)
    preview.show(random_box(1, (100, 200, 210)), image)
    held = preview.node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    assert held.GetExtent() == (210, 216, 200, 205, 100, 104)
