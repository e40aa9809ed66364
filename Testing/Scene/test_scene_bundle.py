from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import slicer
from scene_support import MOVED, Box, add_image, add_transform, random_box

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene import bundle, layout, overlays, prompts
from LKSegmentLib.scene.preview import ClickPreview
from LKSegmentLib.scene.segments import SegmentWriter, ensure_segment, ensure_segmentation, mask_on
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.volumes import grid_of, volume_of
from LKSegmentLib.volumes import Volume, read_volume

SHAPE = (12, 14, 16)


def filled(context, box=None, moved=False):
    """A scene as the command line makes it: image, segment, map over it, clicks, panel state."""
    image = add_image(context)
    if moved:
        image.SetAndObserveTransformNodeID(add_transform(context, MOVED).GetID())
    state = PanelState(context)
    state.input_volume = image
    state.target_segmentation = ensure_segmentation(context, image, "result")
    state.segment_id = ensure_segment(state.target_segmentation, "Left kidney", identifier="lk_kidney")
    SegmentWriter(context).write(state.target_segmentation, state.segment_id, box or random_box(1), image)
    volume = volume_of(image)
    gate = np.random.default_rng(5).random(SHAPE, dtype=np.float32)
    state.overlay = overlays.map_node(context, "gate", Volume(gate, volume.ijk_to_ras), {"unit": "none"}, image)
    state.overlay_visible, state.overlay_opacity, state.model = True, 0.4, "lk_click"
    state.positive_points, state.negative_points = prompts.create_point_nodes(context)
    prompts.add_point(state.positive_points, volume.grid.centre_ras, 1)
    prompts.add_point(state.negative_points, volume.grid.ras_of((1, 2, 3)), 2)
    layout.arrange(context, image, volume.grid.centre_ras, state.overlay, 0.4)
    layout.look_at(context, layout.show_surface(state.target_segmentation))
    return state


@pytest.mark.parametrize("moved", [False, True], ids=["plain", "under a transform"])
def test_a_scene_comes_back_with_everything_in_place(context, tmp_path, moved):
    state = filled(context, moved=moved)
    image, grid = volume_of(state.input_volume), grid_of(state.input_volume)
    mask = mask_on(state.target_segmentation, state.segment_id, grid)
    path = bundle.write_mrb(context, tmp_path / "result.mrb", np.zeros((30, 40, 3), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.mrb"]
    with zipfile.ZipFile(path) as archive:
        assert "result/result.mrml" in archive.namelist()
        assert "result/result.png" in archive.namelist()

    back = bundle.read_mrb(path)
    again = PanelState(back)
    assert again.problems(["lk_click"]) == []
    assert (again.model, again.overlay_visible, again.overlay_opacity) == ("lk_click", True, 0.4)
    assert np.array_equal(volume_of(again.input_volume).array, image.array)
    assert grid_of(again.input_volume).matches(grid, 1e-4)
    assert np.array_equal(mask_on(again.target_segmentation, again.segment_id, grid_of(again.input_volume)), mask)
    segment = again.target_segmentation.GetSegmentation().GetSegment("lk_kidney")
    assert segment.GetName() == "Left kidney"
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in segment.GetTerminology()
    assert np.array_equal(volume_of(again.overlay).array, volume_of(state.overlay).array)
    assert overlays.passport_of(again.overlay) == overlays.passport_of(state.overlay)
    assert again.overlay.GetDisplayNode().GetColorNode().GetName() == "LKSegment sequential"
    found = prompts.points_of(again.positive_points, again.negative_points)
    assert [point.positive for point in found] == [True, False]
    assert found[0].ras == pytest.approx(tuple(grid.centre_ras), abs=1e-3)
    for name in layout.SLICE_VIEWS:
        composite = composite_of(back, name)
        assert composite.GetBackgroundVolumeID() == again.input_volume.GetID()
        assert composite.GetForegroundVolumeID() == again.overlay.GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(0.4)
        assert slice_distance(back, name, grid.centre_ras) < max(grid.spacing)
    assert back.scene.GetFirstNodeByClass("vtkMRMLLayoutNode").GetViewArrangement() == (
        slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    )
    overlays.hide(back)
    assert composite_of(back, "Red").GetForegroundVolumeID() is None


def composite_of(context, name):
    for index in range(context.scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        node = context.scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
        if node.GetLayoutName() == name:
            return node
    raise AssertionError(f"no composite node for {name}")


def slice_distance(context, name, ras) -> float:
    matrix = layout.slice_node(context, name).GetSliceToRAS()
    normal = np.array([matrix.GetElement(row, 2) for row in range(3)])
    origin = np.array([matrix.GetElement(row, 3) for row in range(3)])
    return abs(float(np.dot(normal / np.linalg.norm(normal), np.asarray(ras) - origin)))


def test_the_scene_in_memory_is_as_before(context, tmp_path):
    state = filled(context)
    nodes = context.scene.GetNumberOfNodes()
    bundle.write_mrb(context, tmp_path / "a.mrb")
    bundle.write_mrb(context, tmp_path / "a.mrb")
    assert context.scene.GetNumberOfNodes() <= nodes + 8  # storage nodes, which Slicer keeps from the first write on
    assert state.problems(["lk_click"]) == []


def test_a_preview_is_not_in_the_saved_scene(context, tmp_path):
    state = filled(context)
    ClickPreview(context).show(random_box(2), state.input_volume)
    back = bundle.read_mrb(bundle.write_mrb(context, tmp_path / "a.mrb"))
    assert back.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


@pytest.mark.parametrize("moved", [False, True], ids=["plain", "under a transform"])
def test_a_segmentation_file_lies_over_the_image_and_keeps_its_meaning(context, tmp_path, moved):
    state = filled(context, moved=moved)
    grid = grid_of(state.input_volume)
    nodes = context.scene.GetNumberOfNodes()
    path = bundle.write_segmentation(state.target_segmentation, tmp_path / "result.seg.nrrd")
    assert context.scene.GetNumberOfNodes() == nodes
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.seg.nrrd"]
    node = bundle.read_segmentation(context, path)
    assert np.array_equal(mask_on(node, "lk_kidney", grid), random_box(1).full(SHAPE))
    segment = node.GetSegmentation().GetSegment("lk_kidney")
    assert segment.GetName() == "Left kidney"
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in segment.GetTerminology()
    assert segment.GetColor() == pytest.approx(
        state.target_segmentation.GetSegmentation().GetSegment("lk_kidney").GetColor(), abs=1e-3
    )
    # Another program reads the same voxels at the same place.
    other = read_volume(path)
    ijk = np.argwhere(other.array > 0)[:, ::-1]
    expected = grid.ras_of(np.argwhere(random_box(1).full(SHAPE))[:, ::-1])
    assert np.allclose(other.grid.ras_of(ijk).mean(axis=0), expected.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("write", "good", "bad"),
    [
        (lambda state, path: bundle.write_mrb(state._context, path), "a.mrb", "a.zip"),
        (lambda state, path: bundle.write_segmentation(state.target_segmentation, path), "a.seg.nrrd", "a.nii.gz"),
    ],
    ids=["scene", "segmentation"],
)
def test_places_that_cannot_be_written_are_named(context, tmp_path, write, good, bad):
    state = filled(context)
    with pytest.raises(InputError, match=f"not {bad}"):
        write(state, tmp_path / bad)
    with pytest.raises(InputError, match="does not exist"):
        write(state, tmp_path / "nowhere" / good)
    (tmp_path / good).mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write(state, tmp_path / good)


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from scene_support import Box, add_image
from LKSegmentLib.errors import RunError
from LKSegmentLib.scene import bundle
from LKSegmentLib.scene.core import headless_scene
from LKSegmentLib.scene.segments import SegmentWriter, ensure_segment, ensure_segmentation
context = headless_scene()
image = add_image(context, shape=(40, 50, 60))
node = ensure_segmentation(context, image, "result")
mask = (np.random.default_rng(0).random((40, 50, 60)) > 0.5).astype(np.uint8)
SegmentWriter(context).write(node, ensure_segment(node, "noise"), Box((0, 0, 0), mask), image)
# No file may grow beyond 4 kB from here on: what a full disk does to a writer.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
for write in (lambda: bundle.write_mrb(context, folder / "a.mrb"),
              lambda: bundle.write_segmentation(node, folder / "a.seg.nrrd")):
    try:
        write()
        print("written")
    except RunError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits")
def test_a_full_disk_gives_a_sentence_and_keeps_the_older_file(tmp_path, request):
    (tmp_path / "a.mrb").write_bytes(b"older")
    program = f"import sys; sys.path.insert(0, {str(request.path.parent)!r})\n{_FULL_DISK}"
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2, ran.stdout
    assert all("could not be written" in line or "disk is full" in line for line in ran.stdout.splitlines()), ran.stdout
    assert (tmp_path / "a.mrb").read_bytes() == b"older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mrb"]


def test_what_is_no_scene_or_segmentation_is_refused(context, tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        bundle.read_mrb(tmp_path / "a.mrb")
    (tmp_path / "a.mrb").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="not a whole .mrb"):
        bundle.read_mrb(tmp_path / "a.mrb")
    with pytest.raises(InputError, match="There is no file"):
        bundle.read_segmentation(context, tmp_path / "a.seg.nrrd")
    (tmp_path / "a.seg.nrrd").write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no segmentation"):
        bundle.read_segmentation(context, tmp_path / "a.seg.nrrd")


def test_a_large_mask_survives_the_file(context, tmp_path):
    image = add_image(context, shape=(30, 80, 90))
    node = ensure_segmentation(context, image, "result")
    mask = (np.random.default_rng(1).random((30, 80, 90)) > 0.3).astype(np.uint8)
    segment = ensure_segment(node, "sponge")
    SegmentWriter(context).write(node, segment, Box((0, 0, 0), mask), image)
    back = bundle.read_segmentation(context, bundle.write_segmentation(node, tmp_path / "sponge.seg.nrrd"))
    assert np.array_equal(mask_on(back, segment, grid_of(image)), mask > 0)
