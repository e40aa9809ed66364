"""Where a click session looks: scales for the first click, windows for corrections, and which answer is believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from LKSegmentLib.inference.click_window import ClickWindow
from LKSegmentLib.inference.looks import Look, agreement
from LKSegmentLib.inference.window_choice import WindowChoice
from LKSegmentLib.volumes import Grid, MaskBox

EDGE = 32
GRID = Grid((120, 160, 200), np.diag([2.0, 2.0, 2.5, 1.0]))  # 400 x 320 x 300 mm
MIDDLE = np.array([60.0, 80.0, 100.0])


def ball(window: ClickWindow, radius: float, centre: np.ndarray = MIDDLE, sure: float = 8.0) -> Look:
    """An answer with a ball of this radius in mm around a voxel of the volume."""
    spacing = np.array(window.grid.spacing[::-1])
    places = [
        (window.centre[axis] + (np.arange(window.edge) - (window.edge - 1) / 2) * window.ratios[axis] - centre[axis])
        * spacing[axis]
        for axis in range(3)
    ]
    k, j, i = np.meshgrid(*places, indexing="ij")
    distance = np.sqrt(k**2 + j**2 + i**2)
    return Look(window, np.clip((radius - distance) / window.step, -1, 1).astype(np.float32) * np.float32(sure))


def test_the_first_windows_go_from_wide_to_close_around_the_click() -> None:
    choice = WindowChoice(GRID, EDGE)
    windows = choice.for_first_clicks([MIDDLE], [True])
    steps = [window.step for window in windows]
    assert steps == sorted(steps, reverse=True) and all(a / b <= 1.51 for a, b in zip(steps, steps[1:], strict=False))
    assert EDGE * steps[0] == pytest.approx(5 * 60) and EDGE * steps[-1] == pytest.approx(0.5 * 60, rel=0.01)
    for window in windows:
        assert all(0 <= place <= EDGE - 1 for place in window.position_of(MIDDLE))


def test_windows_are_finer_than_voxels_where_that_shows_a_small_structure_and_no_finer() -> None:
    coarse = WindowChoice(Grid((40, 40, 40), np.diag([8.0, 8.0, 8.0, 1.0])), EDGE)
    assert coarse.for_first_clicks([np.full(3, 20.0)], [True])[-1].step == pytest.approx(2.0)
    tiny = WindowChoice(Grid((8, 8, 8), np.eye(4)), EDGE)
    assert [window.step for window in tiny.for_first_clicks([np.full(3, 4.0)], [True])] == pytest.approx([0.25])


def test_what_the_network_itself_judges_best_is_believed() -> None:
    choice = WindowChoice(GRID, EDGE)
    windows = choice.for_first_clicks([MIDDLE], [True])
    looks = [replace(ball(window, 0.25 * EDGE * window.step), judged=0.4) for window in windows]
    for best in range(len(looks)):
        judged = [replace(look, judged=0.9) if n == best else look for n, look in enumerate(looks)]
        assert choice.most_plausible(judged, 60.0) is judged[best]
    # Judged alike, the one that a neighbouring scale confirms, of an extent that is usual, is the better one.
    confirmed = [replace(ball(window, 30.0), judged=0.4) for window in windows[2:4]]
    assert choice.most_plausible([*looks[:2], *confirmed, *looks[4:]], 60.0) in confirmed


def test_the_answer_that_holds_when_the_scale_changes_is_believed() -> None:
    choice = WindowChoice(GRID, EDGE)
    windows = choice.for_first_clicks([MIDDLE], [True])
    # A structure with a border of its own of 40 mm, and one that is as large as half of whatever window.
    with_border = [ball(window, 20.0) for window in windows]
    without = [ball(window, 0.25 * EDGE * window.step) for window in windows]
    found = choice.most_plausible(with_border, 60.0)
    assert found.extent == pytest.approx(40, abs=2 * found.window.step)
    assert found.window.step <= 2 * 40 / EDGE, "seen as closely as the structure fills the window"
    mixed = [ball(windows[n], 35.0) if n in (1, 2) else look for n, look in enumerate(without)]
    assert 60 < choice.most_plausible(mixed, 60.0).extent < 76


def test_a_whole_body_is_hardly_ever_meant() -> None:
    choice = WindowChoice(GRID, EDGE)
    windows = choice.for_first_clicks([MIDDLE], [True])
    body = [ball(window, 100.0) for window in windows]
    organ = [ball(window, 25.0) for window in windows]
    seen = body[:2] + organ[2:]
    assert choice.most_plausible(seen, 60.0).extent < 80
    assert choice.most_plausible(body, 60.0).extent > 150, "but believed where nothing else is found"


def test_a_volume_cut_out_for_a_structure_is_looked_at_whole() -> None:
    grid = Grid((60, 60, 60), np.eye(4))
    choice = WindowChoice(grid, EDGE)
    centre = np.full(3, 29.5)
    windows = choice.for_first_clicks([centre], [True])
    closer = [ball(window, 0.3 * EDGE * window.step, centre) for window in windows[1:]]
    looks = [ball(windows[0], 23.0, centre), *closer]
    assert choice.most_plausible(looks, 36.0) is looks[0]


def test_a_correction_in_the_middle_of_the_last_window_is_seen_there() -> None:
    choice = WindowChoice(GRID, EDGE)
    last = choice.around(MIDDLE, 3.0)
    mask = MaskBox((47, 64, 84), np.ones((26, 32, 32), np.uint8))
    assert choice.for_correction([MIDDLE + 5], mask, last) == [last]


def test_a_wider_correction_is_also_seen_at_the_old_scale() -> None:
    choice = WindowChoice(GRID, EDGE)
    last = choice.around(MIDDLE, 1.5)
    mask = MaskBox((50, 70, 92), np.ones((20, 20, 16), np.uint8))
    click = MIDDLE + np.array([0.0, 0.0, 45.0])
    wider, moved = choice.for_correction([click], mask, last)
    assert wider.step > 1.25 * last.step and moved.step == last.step
    for window in (wider, moved):
        assert all(2.9 <= place <= EDGE - 1 - 2.9 for place in window.position_of(click))
    low, high = wider.position_of(np.array([50.0, 70.0, 92.0])), wider.position_of(np.array([70.0, 90.0, 108.0]))
    assert all(value >= 0 for value in low) and all(value < EDGE for value in high)


def test_a_smaller_mask_is_seen_more_closely_once() -> None:
    choice = WindowChoice(GRID, EDGE)
    last = choice.around(MIDDLE, 6.0)
    (closer,) = choice.for_correction([MIDDLE], MaskBox((55, 75, 95), np.ones((10, 10, 10), np.uint8)), last)
    assert closer.step < 2


def test_a_click_at_the_border_of_the_volume_moves_no_window_out_of_it() -> None:
    choice = WindowChoice(GRID, EDGE)
    last = choice.around(np.zeros(3), 2.0)
    mask = MaskBox((0, 0, 0), np.ones((17, 21, 21), np.uint8))
    assert choice.for_correction([np.zeros(3)], mask, last) == [last]


def test_agreement_is_the_overlap_in_millimetres_at_any_scale() -> None:
    choice = WindowChoice(GRID, EDGE)
    coarse, fine = choice.around(MIDDLE, 4.0), choice.around(MIDDLE, 2.5)
    assert agreement(ball(coarse, 25.0), ball(fine, 25.0)) > 0.85
    assert agreement(ball(coarse, 25.0), ball(fine, 12.5)) == pytest.approx(1 / 8, abs=0.04)
    far = np.array([60.0, 80.0, 122.0])
    assert agreement(ball(coarse, 12.0), ball(fine, 12.0, far)) == 0
    outside = agreement(ball(coarse, 60.0), ball(fine, 35.0))
    assert outside == pytest.approx((35 / 60) ** 3, abs=0.05), "what the closer window does not show counts"


def test_values_of_a_window_are_carried_over_linearly() -> None:
    choice = WindowChoice(GRID, EDGE)
    one, other = choice.around(MIDDLE, 4.0), choice.around(MIDDLE + 3, 2.5)
    ramp = np.indices((EDGE,) * 3).astype(np.float32)
    seen = one.spread_over(ramp[0] + 2 * ramp[2], other)
    k, j, i = one.position_of(np.array(other.centre))
    middle = seen[15:17, 15:17, 15:17].mean()
    assert middle == pytest.approx(k + 2 * i, abs=1e-3)
    assert seen[20, 3, 7] - seen[19, 3, 7] == pytest.approx(2.5 / 4.0, abs=1e-3)


def test_what_a_look_tells() -> None:
    window = WindowChoice(GRID, EDGE).around(MIDDLE, 3.0)
    look = ball(window, 20.0)
    assert look.extent == pytest.approx(40, abs=3.0) and look.size == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.1)
    assert not look.runs_out and ball(window, 60.0).runs_out
    nothing = Look(window, np.full((EDGE,) * 3, -3.0, np.float32))
    assert nothing.extent == nothing.size == 0
    assert nothing.expected_dice == pytest.approx(0.95, abs=0.01), "it is sure that there is nothing"
    beyond_float = Look(window, np.full((EDGE,) * 3, -200.0, np.float32))
    assert beyond_float.expected_dice == 1
    assert ball(window, 20.0, sure=8.0).expected_dice > ball(window, 20.0, sure=1.0).expected_dice


def test_a_box_tells_the_scale_and_a_scribble_that_it_is_not_smaller() -> None:
    choice = WindowChoice(GRID, EDGE)
    faces = [MIDDLE, MIDDLE + (4, 0, 0), MIDDLE - (4, 0, 0), MIDDLE + (0, 5, 0), MIDDLE - (0, 5, 0)]
    signs = [True, False, False, False, False]
    assert choice.usual_extent(faces, signs) == pytest.approx(20)
    windows = choice.for_first_clicks(faces, signs)
    assert len(windows) <= 3 and all(1.1 * 20 < EDGE * window.step < 2.3 * 20 for window in windows)
    assert choice.usual_extent(faces, [True] * 5) == choice.usual_extent([MIDDLE], [True]) == pytest.approx(60)
    long = [MIDDLE, MIDDLE + (0, 45, 0)]
    assert choice.usual_extent(long, [True, True]) == pytest.approx(90)
    for window in choice.for_first_clicks(long, [True, True]):
        assert all(0 <= place <= EDGE - 1 for click in long for place in window.position_of(click))


def test_a_box_that_the_volume_cuts_goes_on_as_far_as_its_middle_tells() -> None:
    choice = WindowChoice(Grid((100, 100, 100), np.eye(4)), EDGE)
    seed = np.full(3, 15.0)
    faces = [seed, *(np.where(np.arange(3) == axis, 31.0, 15.0) for axis in range(3))]
    signs = [True, False, False, False]
    assert choice.usual_extent(faces, signs) == pytest.approx(31)
    for window in choice.for_first_clicks(faces, signs):
        for corner in (np.zeros(3), np.full(3, 30.0)):
            assert all(-0.6 <= place <= EDGE - 0.4 for place in window.position_of(corner))


def test_a_window_around_a_box_needs_its_witness_in_a_small_volume_too() -> None:
    choice = WindowChoice(Grid((100, 100, 100), np.eye(4)), EDGE)
    centre = np.full(3, 49.5)
    faces = [centre, centre + (10, 0, 0), centre - (10, 0, 0)]
    windows = choice.for_first_clicks(faces, [True, False, False])
    assert not windows[0].covers_volume
    looks = [ball(windows[0], 8.0, centre), *(ball(window, 11.0, centre) for window in windows[1:])]
    assert choice.most_plausible(looks, 20.0) is not looks[0]


def test_a_correcting_stroke_is_seen_whole() -> None:
    choice = WindowChoice(GRID, EDGE)
    last = choice.around(MIDDLE, 1.5)
    mask = MaskBox((55, 75, 95), np.ones((10, 10, 10), np.uint8))
    stroke = [MIDDLE + np.array([0.0, 8.0 * n, -10.0]) for n in range(-4, 5)]
    windows = choice.for_correction(stroke, mask, last)
    assert len(windows) == 1, "the old scale does not hold it"
    for click in stroke:
        assert all(0 <= place <= EDGE - 1 for place in windows[0].position_of(click))
