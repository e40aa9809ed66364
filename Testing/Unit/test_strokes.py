"""Boxes, scribbles and lassos become the right points, in one stroke."""

from __future__ import annotations

import numpy as np
import pytest

import LKSegmentLib as lk
from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import Point, without_last
from LKSegmentLib.prompts.strokes import box, lasso, scribble
from LKSegmentLib.volumes import Grid

GRID = Grid((40, 40, 40), np.eye(4))


def _is_one_stroke(points: tuple[Point, ...]) -> bool:
    return all(point.with_next for point in points[:-1]) and not points[-1].with_next


def test_a_box_is_a_place_inside_and_places_beyond_its_faces() -> None:
    points = box((30, 30, 30), (10, 20, 16), GRID)
    assert _is_one_stroke(points)
    assert points[0] == Point((20, 25, 23), True, True)
    outside = [point.ras for point in points if not point.positive]
    assert len(outside) == 6
    low, high = np.array((10, 20, 16)), np.array((30, 30, 30))
    for place in outside:
        assert ((np.array(place) < low) | (np.array(place) > high)).sum() == 1, "beyond one face, in its middle"


def test_faces_outside_of_the_volume_say_nothing() -> None:
    points = box((-5, 5, 5), (20, 45, 20), GRID)
    assert [point.ras[0] < 0 or point.ras[1] > 40 for point in points] == [False] * len(points)
    assert sum(not point.positive for point in points) == 4


def test_a_scribble_is_evenly_along_the_line() -> None:
    points = scribble([(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 12, 2)], positive=False)
    assert _is_one_stroke(points) and not any(point.positive for point in points)
    steps = np.linalg.norm(np.diff([point.ras for point in points], axis=0), axis=1)
    assert len(points) == 4 and steps.max() < 1.5 * steps.min()
    assert len(scribble([(0, 0, float(place)) for place in range(90)])) == 7
    assert scribble([(1, 2, 3)]) == (Point((1, 2, 3)),)


def test_a_lasso_of_an_oblique_plane_has_places_on_both_sides_of_its_line() -> None:
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    contour = np.stack([9 * np.cos(angles), 6 * np.sin(angles), 0 * angles], -1) @ turned.T + 20
    points = lasso([tuple(place) for place in contour], GRID)
    assert _is_one_stroke(points)
    for point in points:
        x, y, z = (np.array(point.ras) - 20) @ turned
        assert abs(z) < 0.3
        assert ((x / 9) ** 2 + (y / 6) ** 2 < 1) == point.positive
    assert sum(point.positive for point in points) == 5 and len(points) == 11
    assert np.linalg.norm(np.array(points[0].ras) - 20) < 4.5, "the deepest place comes first"


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: box((1, 1, 1), (5, 5, 1), GRID), "differ along R, A and S"),
        (lambda: box((1, 1, 1), (5, 5, 5), GRID, inside=(9, 2, 2)), "must lie in the box"),
        (lambda: box((-9, -9, -9), (-2, -2, -2), GRID), "in the volume"),
        (lambda: scribble([]), "at least one point"),
        (lambda: lasso([(0, 0, 0), (1, 1, 1)], GRID), "at least three points"),
        (lambda: lasso([(0, 0, 0), (1, 1, 1), (2, 2, 2)], GRID), "on one line"),
        (lambda: lasso([(5, 5, 5)] * 4, GRID), "on one line"),
        (lambda: lasso([(100, 0, 5), (110, 0, 5), (105, 9, 5)], GRID), "nothing of the volume"),
        (lambda: scribble([(0, 0)]), "three finite RAS coordinates"),
        (lambda: scribble([("left", 0, 0)]), "three finite RAS coordinates"),
        (lambda: scribble([1.0, 2.0, 3.0]), "three finite RAS coordinates"),
    ],
)
def test_strokes_that_mean_nothing_are_refused(draw, words) -> None:
    with pytest.raises(InputError, match=words):
        draw()


def test_the_last_stroke_is_taken_back_as_one() -> None:
    first, stroke = Point((1, 1, 1)), scribble([(0, 0, 0), (0, 0, 9), (0, 9, 9)])
    assert without_last((first, *stroke)) == (first,)
    assert without_last((first, *stroke, first)) == (first, *stroke)
    assert without_last(stroke) == without_last(()) == ()


def test_a_session_answers_a_stroke_once_and_takes_it_back_as_one() -> None:
    k, j, i = np.meshgrid(*[np.arange(40)] * 3, indexing="ij")
    image = np.where((k - 20) ** 2 + (j - 20) ** 2 + (i - 18) ** 2 < 81, 100.0, 0.0)
    image += np.random.default_rng(0).normal(size=image.shape)
    with lk.ClickSession(lk.Volume(image.astype(np.float32), np.eye(4)), device="cpu") as session:
        ran = []
        clicked = session.add_point((18, 20, 20))
        service = session._service
        model = next(iter(service._sessions.values()))
        model.network.register_forward_hook(lambda *_: ran.append(1))
        session.add_scribble([(18, 20, 14), (18, 26, 20), (24, 20, 20)])
        assert 1 <= len(ran) <= 2, "one look, or one more that is wider"
        assert len(session.points) == 4
        np.testing.assert_array_equal(session.undo(), clicked)
        assert len(session.points) == 1
        mask = session.add_box((8, 10, 10), (28, 30, 30))
        assert mask[20, 20, 18] and not mask[20, 20, 38]
