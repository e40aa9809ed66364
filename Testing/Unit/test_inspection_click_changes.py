"""What a click changed: recomputed by hand from the maps before and after, with windows that stay and that move."""

from __future__ import annotations

import numpy as np
import pytest
from test_inspection import oblique_volume, random_session

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.inspection.click_changes import LAYERS, LOGIT, changes, difference_maps
from LKSegmentLib.inspection.click_maps import click_maps
from LKSegmentLib.inspection.probe import value_at, values_of
from LKSegmentLib.prompts import Point


@pytest.fixture(scope="module")
def session() -> ClickModelSession:
    return random_session(oblique_volume((40, 56, 60)))


def clicks(session: ClickModelSession, *ijk: tuple[float, float, float]) -> list[Point]:
    r = session.volume.grid
    return [Point(tuple(float(v) for v in r.ras_of(place)), number == 0) for number, place in enumerate(ijk)]


@pytest.fixture(scope="module")
def points(session: ClickModelSession) -> list[Point]:
    return clicks(session, (30, 28, 20), (12, 40, 9), (20, 20, 20))


def row(session: ClickModelSession, points: list[Point], number: int) -> dict[str, object]:
    table = changes(session, points)
    return dict(zip(table.columns, table.rows[number], strict=True))


def test_gained_and_lost_voxels_are_those_of_the_masks(session: ClickModelSession, points: list[Point]) -> None:
    table = changes(session, points)
    masks = [session.mask_for(points[:count]).full(session.volume.grid.shape) for count in (1, 2, 3)]
    assert not np.array_equal(masks[0], masks[1]), "the test needs a click that changes something"
    old = np.zeros_like(masks[0])
    voxel = float(np.prod(session.volume.spacing))
    for number, mask in enumerate(masks):
        found = dict(zip(table.columns, table.rows[number], strict=True))
        assert found["voxels"] == mask.sum()
        assert found["gained"] == (mask & ~old).sum() and found["lost"] == (old & ~mask).sum()
        assert found["gained (mm³)"] == pytest.approx((mask & ~old).sum() * voxel)
        old = mask
    assert table.column("kind") == ["positive", "negative", "negative"]
    assert table.x == "click" and table.column("click") == [1, 2, 3]


def test_changes_of_gates_are_at_the_same_voxels() -> None:
    session = random_session(oblique_volume((20, 28, 30)))  # its window shows all of it, also the second click
    points = clicks(session, (15, 14, 10), (10, 20, 10))
    found = row(session, points[:2], 1)
    first = row(session, points[:2], 0)
    # The canonical grid: on the volume's own, places half way between two voxels of a map fall to the other side.
    mask = session.state_for(points[:2]).mask.full(session.canonical_grid.shape)
    every = session.canonical_grid.ras_of(np.argwhere(mask)[:, ::-1])
    assert len(every) > 100
    for name in LAYERS:
        before, after = (click_maps(session, points[:count], [name])[0] for count in (1, 2))
        new, old = values_of(after, every), values_of(before, every)
        assert found[f"{name} inside"] == pytest.approx(np.nanmean(new), rel=1e-4)
        assert found[f"{name} inside, change"] == pytest.approx(np.nanmean(new - old), abs=1e-5)
        there = points[1].ras
        change = value_at(after, there) - value_at(before, there)
        assert found[f"{name} at the click, change"] == pytest.approx(change, abs=1e-5)
        assert first[f"{name} inside, change"] is None and first[f"{name} at the click"] is not None
    # Inside the mask the logit is positive, up to what interpolation to the volume's voxels does.
    assert isinstance(found[f"{LOGIT} inside"], float) and found[f"{LOGIT} inside"] > 0


def test_difference_volumes_are_after_minus_before(monkeypatch: pytest.MonkeyPatch) -> None:
    session = random_session(oblique_volume((40, 56, 60)))
    choice = session._choice  # of a random network's answers the widest would be believed, and stay
    monkeypatch.setattr(choice, "for_first_clicks", lambda places, positive: [choice.around(places[0], 1.0)])
    moved = clicks(session, (50, 50, 30), (2, 3, 2))
    small = random_session(oblique_volume((20, 28, 30)))
    stayed = clicks(small, (15, 14, 10), (10, 20, 10))
    for here, chosen in ((session, moved), (small, stayed)):
        windows = [here.state_for(chosen[:count]).window for count in (1, 2)]
        assert (windows[0] == windows[1]) == (chosen is stayed), "the test needs a window that moves and one that stays"
        maps = difference_maps(here, chosen)
        assert [found.passport["neutral"] for found in maps] == [0.0] * len(maps)
        assert [found.name for found in maps] == [f"{name}: change by the last click" for name in (*LAYERS, LOGIT)]
        for name, found in zip(LAYERS, maps, strict=False):
            before, after = (click_maps(here, chosen[:count], [name])[0] for count in (1, 2))
            assert np.isfinite(found.volume.array).all(), "both windows show every voxel of the common grid"
            assert found.passport["range"] == [-1.0, 1.0]
            assert found.passport["windows"].startswith("the same" if chosen is stayed else "different")
            for ijk in np.argwhere(found.volume.array > -9)[:: max(1, found.volume.array.size // 50), ::-1]:
                place = found.volume.grid.ras_of(ijk)
                expected = value_at(after, place) - value_at(before, place)
                assert found.volume.array[tuple(ijk[::-1])] == pytest.approx(expected, abs=1e-5)


def test_a_stroke_is_one_step(session: ClickModelSession, points: list[Point]) -> None:
    stroke = [points[0], Point(points[1].ras, False, with_next=True), points[2]]
    table = changes(session, stroke)
    assert table.column("click") == [1, 2]
    masks = [session.mask_for(stroke[:count]).full(session.volume.grid.shape) for count in (1, 3)]
    assert table.column("voxels") == [int(mask.sum()) for mask in masks]
    (logit,) = (found for found in difference_maps(session, stroke) if found.name.startswith(LOGIT))
    before, after = (session.state_for(stroke[:count]).window for count in (1, 3))
    assert logit.volume.grid.shape == after.window_grid.shape or before != after
    with pytest.raises(InputError, match="two clicks"):
        difference_maps(session, [Point(points[0].ras, with_next=True), points[2]])


def test_no_click_and_one_click_have_nothing_to_compare(session: ClickModelSession, points: list[Point]) -> None:
    with pytest.raises(InputError, match="at least one click"):
        changes(session, [])
    with pytest.raises(InputError, match="two clicks"):
        difference_maps(session, points[:1])
