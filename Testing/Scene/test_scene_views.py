"""What the pictures show, pixel by pixel, drawn by Slicer's own displayable managers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from scene_support import Box

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.scene import layout, overlays, prompts, views
from LKSegmentLib.scene.core import SceneContext
from LKSegmentLib.scene.segments import SegmentWriter, ensure_segment, ensure_segmentation
from LKSegmentLib.scene.volumes import add_volume_node
from LKSegmentLib.volumes import Grid, Volume

SIZE = (240, 180)
WIDTH, HEIGHT = 2 * 240 + 12, 2 * 180 + 12
SHAPE = (40, 50, 60)
GRID = Grid(SHAPE, np.array([[2.0, 0, 0, -60], [0, 2.0, 0, -50], [0, 0, 2.0, -40], [0, 0, 0, 1.0]]))
CUBE = Box((12, 15, 20), np.ones((16, 20, 20), np.uint8))


@pytest.fixture(autouse=True)
def needs_graphics():
    problem = views.rendering_problem()
    if problem is not None:
        pytest.skip(problem)


class Picture:
    """A grey body with a bright cube in the middle, which is a segment, a map and a click."""

    def __init__(self, context: SceneContext, segment=True, overlay=True, click=True):
        self.context = context
        values = np.full(SHAPE, 40.0, np.float32)
        values[CUBE.full(SHAPE)] = 80.0
        self.image = add_volume_node(context, Volume(values, GRID.ijk_to_ras), "body")
        layout.set_window(self.image, (0.0, 100.0))
        self.middle = GRID.ras_of((29.5, 24.5, 19.5))
        self.segmentation = ensure_segmentation(context, self.image, "result")
        if segment:
            identifier = ensure_segment(self.segmentation, "cube", color=(0.0, 1.0, 0.0))
            SegmentWriter(context).write(self.segmentation, identifier, CUBE, self.image)
            layout.set_fill(self.segmentation, 0.0)
            layout.look_at(context, layout.show_surface(self.segmentation))
        self.map = None
        if overlay:
            gate = np.where(CUBE.full(SHAPE), 0.9, 0.1).astype(np.float32)
            self.map = overlays.map_node(
                context,
                "gate",
                Volume(gate, GRID.ijk_to_ras),
                {},
                self.image,
                overlays.display_for(gate, window=(0, 1)),
            )
        if click:
            positive, _ = prompts.create_point_nodes(context)
            prompts.add_point(positive, self.middle, 1)
        layout.arrange(context, self.image, self.middle, self.map, 0.6)

    def pixels(self, *names):
        drawn = views.draw_views(self.context, SIZE, names or ("Red", "Green", "Yellow"))
        return {name: view.astype(int) for name, view in drawn.items()}


def greyish(pixel) -> bool:
    return int(max(pixel) - min(pixel)) <= 3


def near_middle(view, rows=12, columns=12):
    """A pixel inside the cube, clear of the click in its middle, and one in the body outside of it."""
    height, width, _ = view.shape
    return view[height // 2 + rows, width // 2 + columns], view[height // 2 + 54, width // 2 + 54]


def test_the_image_alone_is_grey_as_its_window_says(context):
    shown = Picture(context, segment=False, overlay=False, click=False).pixels()
    for name in ("Red", "Green", "Yellow"):
        inside, outside = near_middle(shown[name])
        assert greyish(inside)
        assert greyish(outside)
        assert inside[0] == pytest.approx(0.8 * 255, abs=2)
        assert outside[0] == pytest.approx(0.4 * 255, abs=2)
        assert shown[name][-2, 2].max() == 0, "there is nothing beside the body"


def test_the_overlay_colours_the_inside_and_leaves_the_outside(context):
    picture = Picture(context, segment=False, click=False)
    shown = picture.pixels()
    color = [0.0] * 4
    picture.map.GetDisplayNode().GetColorNode().GetColor(round(0.9 * 255), color)
    for name in ("Red", "Green", "Yellow"):
        inside, outside = near_middle(shown[name])
        expected = 0.4 * 0.8 * 255 + 0.6 * 255 * np.array(color[:3])
        assert np.abs(inside - expected).max() < 8
        assert greyish(outside)
        assert outside[0] == pytest.approx(0.4 * 255, abs=2)
    overlays.hide(context)
    assert greyish(near_middle(picture.pixels("Red")["Red"])[0])


def test_segment_outlines_and_surface_are_drawn_in_the_segments_colour(context):
    shown = Picture(context, overlay=False, click=False).pixels("Red", "Green", "Yellow", "3D")
    for name in ("Red", "Green", "Yellow"):
        view = shown[name]
        green = (view[..., 1] > 200) & (view[..., 0] < 120) & (view[..., 2] < 120)
        rows, columns = np.nonzero(green[20:])
        assert 100 < len(rows) < 3000
        assert np.abs(columns.mean() - view.shape[1] / 2) < 4
        assert greyish(near_middle(view)[0])
    surface = shown["3D"]
    height, width, _ = surface.shape
    assert surface[height // 2, width // 2, 1] > 1.5 * surface[height // 2, width // 2, 0]
    assert surface[-10, 10, 2] > surface[-10, 10, 1], "the background of the 3D view is bluish"


def test_a_fill_tints_the_segment(context):
    picture = Picture(context, overlay=False, click=False)
    layout.set_fill(picture.segmentation, 0.5)
    inside, outside = near_middle(picture.pixels("Red")["Red"])
    assert np.abs(inside - 0.5 * (204 + np.array([0, 255, 0]))).max() < 6
    assert greyish(outside)


def test_clicks_are_drawn_where_they_are(context):
    shown = Picture(context, segment=False, overlay=False).pixels()
    for name in ("Red", "Green", "Yellow"):
        view = shown[name]
        height, width, _ = view.shape
        pixel = view[height // 2, width // 2]
        assert pixel[1] > pixel[0] + 60
        assert pixel[1] > pixel[2] + 40


def test_views_are_labelled_and_marked_in_their_colours(context):
    shown = Picture(context, segment=False, overlay=False, click=False).pixels()
    for name, (_, color) in layout.SLICE_VIEWS.items():
        assert np.abs(shown[name][1, 100] - 255 * np.array(color)).max() < 12
        assert (shown[name][4:26, 2:120].min(axis=2) > 200).sum() > 40, "white letters in the upper left corner"


def test_a_legend_says_what_the_colours_mean(context):
    picture = Picture(context, segment=False, click=False)
    plain = picture.pixels("Red", "Green")
    overlays.add_legend(picture.map, "gate", [layout.slice_node(context, "Red").GetID()])
    shown = picture.pixels("Red", "Green")
    changed = np.abs(shown["Red"] - plain["Red"]).max(axis=2) > 30
    rows, columns = np.nonzero(changed)
    assert columns.min() > 0.75 * SIZE[0]
    assert changed.sum() > 300
    assert np.array_equal(shown["Green"], plain["Green"])


def test_drawing_twice_gives_the_same_picture_and_leaves_the_scene_alone(context):
    picture = Picture(context)
    first = views.four_views(context, WIDTH, HEIGHT)
    nodes = context.scene.GetNumberOfNodes()
    places = [layout.slice_node(context, name).GetSliceToRAS().GetElement(2, 3) for name in layout.SLICE_VIEWS]
    assert np.array_equal(views.four_views(context, WIDTH, HEIGHT), first)
    assert context.scene.GetNumberOfNodes() == nodes
    assert places == [layout.slice_node(context, name).GetSliceToRAS().GetElement(2, 3) for name in layout.SLICE_VIEWS]
    assert picture.image.GetDisplayNode().GetWindowLevelMax() == 100.0


def test_the_picture_is_written_whole_or_not_at_all(context, tmp_path):
    Picture(context, segment=False, overlay=False, click=False)
    path = views.render_four_views(context, tmp_path / "views.png", WIDTH, HEIGHT)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in tmp_path.iterdir()] == ["views.png"]
    with pytest.raises(InputError, match="does not exist"):
        views.render_four_views(context, tmp_path / "nowhere" / "views.png", WIDTH, HEIGHT)


def test_inside_the_application_the_users_views_are_left_alone(context):
    inside = SceneContext(context.scene, context.application_logic, context.logic, in_application=True)
    with pytest.raises(RunError, match="Screen Capture"):
        views.four_views(inside)


def test_a_machine_without_graphics_gets_a_sentence_and_no_crash(tmp_path):
    program = (
        "from LKSegmentLib.errors import RunError\n"
        "from LKSegmentLib.scene import core, views\n"
        "try:\n"
        f"    views.render_four_views(core.headless_scene(), {str(tmp_path / 'x.png')!r})\n"
        "except RunError as error:\n"
        "    print(error)\n"
    )
    # The window class of a library that is not installed ends the process that tries it.
    environment = {**os.environ, "VTK_DEFAULT_OPENGL_WINDOW": "vtkOSOpenGLRenderWindow"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    if not (tmp_path / "x.png").exists():
        assert "Pictures cannot be drawn on this machine" in ran.stdout
        assert "install" in ran.stdout


def test_zooming_keeps_the_view_full_and_the_structure_in_it(context):
    picture = Picture(context, segment=False, overlay=False, click=False)
    corner = GRID.ras_of((2, 2, 2))
    layout.arrange(context, picture.image, corner, zoom=1.5)
    view = picture.pixels("Red")["Red"]
    height, width, _ = view.shape
    assert view[height // 2, 4 : width - 4].min() > 50, "the body fills the view from side to side"


def test_there_must_be_something_to_look_at(context):
    with pytest.raises(InputError, match="segment is empty"):
        layout.look_at(context, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0])


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (np.array([-1024.0, 0, 50, 1500]), (-160.0, 240.0)),
        (np.zeros(8), (0.0, 1.0)),
        (np.array([np.nan] * 8), (0.0, 1.0)),
    ],
)
def test_a_window_that_suits_the_image_is_chosen(values, window):
    assert layout.display_window(Volume(np.resize(values, (2, 2, 2)), np.eye(4))) == window
