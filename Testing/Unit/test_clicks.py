"""Click sessions with networks whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.inference import clicks
from LKSegmentLib.inference.clicks import ClickModelSession, MaskBox, _change_one_way
from LKSegmentLib.prompts import CHANNELS, Point
from LKSegmentLib.volumes import Volume, VolumeWarning, canonical_axes


class AlikeNetwork(torch.nn.Module):
    """Says yes where the image is bright and does not look as at the negative clicks."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        AlikeNetwork.calls += 1
        return x[:, 0:1] - 1 - 9 * x[:, 6:7]


class SimilarNetwork(torch.nn.Module):
    """Says yes where the image looks as at the positive clicks, also when that is the whole window."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 5:6] - 0.2


def click_package(window: int = 32, network: torch.nn.Module | None = None) -> SimpleNamespace:
    manifest = SimpleNamespace(name="alike", kind="click", in_channels=len(CHANNELS), window=(window,) * 3, prompts={})
    return SimpleNamespace(manifest=manifest, network=lambda device: (network or AlikeNetwork()).eval())


def ball_volume(
    shape=(40, 60, 60), radius_mm=9.0, matrix=None
) -> tuple[Volume, np.ndarray, tuple[float, float, float]]:
    matrix = np.diag([1.0, 1.0, 1.5, 1.0]) if matrix is None else matrix
    volume = Volume(np.zeros(shape, np.float32), matrix)
    centre = volume.grid.centre_ras
    k, j, i = np.indices(shape)
    distance = np.linalg.norm(volume.grid.ras_of(np.stack((i, j, k), -1)) - centre, axis=-1)
    ball = distance < radius_mm
    noise = 0.02 * np.random.default_rng(0).normal(size=shape)
    return volume.with_array((100 * ball + noise).astype(np.float32)), ball, tuple(float(v) for v in centre)


def overlap(mask: np.ndarray, ball: np.ndarray) -> float:
    return 2 * (mask & ball).sum() / (mask.sum() + ball.sum())


def test_a_click_finds_the_ball_at_the_right_place() -> None:
    volume, ball, centre = ball_volume()
    mask = ClickModelSession(volume, click_package()).mask_for([Point(centre)]).full(ball.shape)
    assert overlap(mask, ball) > 0.9


def test_the_window_is_as_wide_as_a_structure_that_runs_out_of_closer_ones() -> None:
    volume, ball, centre = ball_volume(shape=(60, 90, 90), radius_mm=30.0)
    session = ClickModelSession(volume, click_package(24, SimilarNetwork()))
    state = session.state_for([Point(centre)])
    assert 24 * state.window.step > 60, "it shows all of the ball"
    assert overlap(session.mask_for([Point(centre)]).full(ball.shape), ball) > 0.65


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_the_same_image_stored_otherwise_gives_the_same_mask(axes, flips) -> None:
    volume, _, centre = ball_volume()
    reference = ClickModelSession(volume, click_package()).mask_for([Point(centre)]).full(volume.array.shape)
    turned = np.transpose(volume.array, axes)[tuple(slice(None, None, flip) for flip in flips)]
    masks = np.transpose(reference, axes)[tuple(slice(None, None, flip) for flip in flips)]
    # array axis n is index axis 2 - n
    matrix = np.eye(4)
    first = np.zeros(3)
    for axis in range(3):
        old_index = 2 - axes[axis]
        new_index = 2 - axis
        matrix[:3, new_index] = volume.ijk_to_ras[:3, old_index] * flips[axis]
        first[old_index] = 0 if flips[axis] == 1 else turned.shape[axis] - 1
    matrix[:3, 3] = volume.grid.ras_of(first)
    other = Volume(np.ascontiguousarray(turned), matrix)
    assert canonical_axes(other.grid).canonical.matches(volume.grid)
    np.testing.assert_array_equal(
        ClickModelSession(other, click_package()).mask_for([Point(centre)]).full(other.array.shape), masks
    )


def test_undo_is_remembered_and_replay_gives_the_same_mask() -> None:
    volume, _, (r, a, s) = ball_volume()
    clicks = [Point((r, a, s)), Point((r + 20, a, s), False), Point((r + 4, a, s))]
    session = ClickModelSession(volume, click_package())
    masks = [session.mask_for(clicks[: n + 1]) for n in range(3)]
    before = AlikeNetwork.calls
    again = session.mask_for(clicks[:2])
    assert AlikeNetwork.calls == before
    np.testing.assert_array_equal(again.array, masks[1].array)
    replayed = ClickModelSession(volume, click_package()).mask_for(clicks)
    assert replayed.lower == masks[2].lower
    np.testing.assert_array_equal(replayed.array, masks[2].array)


def test_no_clicks_no_mask() -> None:
    volume, ball, _ = ball_volume()
    empty = ClickModelSession(volume, click_package()).mask_for([])
    assert not empty.full(ball.shape).any()


def test_what_is_outside_the_window_stays() -> None:
    """A second window far from the first structure must not erase it."""
    volume, ball, (r, a, s) = ball_volume(shape=(40, 60, 200), radius_mm=7.0)
    two = volume.array.copy()
    two[:, :, :60] = np.maximum(two[:, :, :60], volume.array[:, :, 70:130])  # a second ball 70 mm to the side
    session = ClickModelSession(volume.with_array(two), click_package())
    first = session.mask_for([Point((r, a, s))]).full(ball.shape)
    both = session.mask_for([Point((r, a, s)), Point((r - 70, a, s))]).full(ball.shape)
    assert first[ball].mean() > 0.9 and both[ball].mean() > 0.8 and both[:, :, :60].any()


def test_bad_clicks_are_refused_with_a_sentence() -> None:
    volume, _, (r, a, s) = ball_volume()
    session = ClickModelSession(volume, click_package())
    with pytest.raises(InputError, match="Click 2 .* outside the volume"):
        session.mask_for([Point((r, a, s)), Point((r + 1000, a, s))])
    with pytest.raises(InputError, match="first click must be positive"):
        session.mask_for([Point((r, a, s), False)])
    with pytest.raises(InputError, match="one channel"):
        ClickModelSession(Volume(np.zeros((2, 8, 8, 8), np.float32), np.eye(4)), click_package())
    package = click_package()
    package.manifest.prompts = {"channels": [*CHANNELS[:-1], "nearness to the moon"]}
    with pytest.raises(InputError, match="nearness to the moon"):
        ClickModelSession(volume, package)
    package = click_package()
    package.manifest.kind = "volume"
    with pytest.raises(InputError, match="does not take clicks"):
        ClickModelSession(volume, package)


class BrokenNetwork(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * float("nan")


def test_a_model_that_answers_with_no_numbers_fails_and_odd_windows_are_refused() -> None:
    volume, _, centre = ball_volume()
    with pytest.raises(RunError, match="not numbers"):
        ClickModelSession(volume, click_package(network=BrokenNetwork())).mask_for([Point(centre)])
    package = click_package()
    package.manifest.window = (32, 32, 16)
    with pytest.raises(InputError, match="must be a cube"):
        ClickModelSession(volume, package)


def test_cancelling_leaves_the_session_usable() -> None:
    volume, ball, centre = ball_volume()
    session = ClickModelSession(volume, click_package())
    with pytest.raises(Cancelled):
        session.mask_for([Point(centre)], cancelled=lambda: True)
    assert overlap(session.mask_for([Point(centre)]).full(ball.shape), ball) > 0.9


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 12, 9), (5, 5, 5)])
def test_volumes_smaller_than_a_window_work(shape) -> None:
    volume = Volume(np.random.default_rng(6).normal(size=shape).astype(np.float32), np.eye(4))
    mask = ClickModelSession(volume, click_package()).mask_for([Point((2.0, 2.0, 0.0))])
    assert mask.full(shape).shape == shape


def test_mask_box_round_trip() -> None:
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 2, 3:6] = True
    box = MaskBox.of(mask)
    assert box.lower == (1, 2, 3) and box.array.shape == (2, 1, 3)
    np.testing.assert_array_equal(box.full(mask.shape), mask)


def test_voxels_that_are_no_numbers_are_told_and_an_image_of_nothing_else_is_refused() -> None:
    volume, ball, centre = ball_volume()
    harmed = volume.array.copy()
    harmed[0, 0, :3] = np.nan, np.inf, 1e38
    with pytest.warns(VolumeWarning, match="3 of"):
        session = ClickModelSession(volume.with_array(harmed), click_package())
    assert overlap(session.mask_for([Point(centre)]).full(ball.shape), ball) > 0.9
    with pytest.raises(InputError, match="No voxel of the image is a usable number"):
        ClickModelSession(volume.with_array(np.full_like(harmed, np.nan)), click_package())


@pytest.mark.parametrize("surer", [0, 1])
@pytest.mark.parametrize("judged", [False, True])
def test_of_two_answers_to_a_correction_the_surer_is_kept(surer: int, judged: bool, monkeypatch) -> None:
    volume, _, (r, a, s) = ball_volume(shape=(60, 120, 120))
    session = ClickModelSession(volume, click_package())
    session.state_for([Point((r, a, s))])
    choice = session._choice
    windows = [choice.around(np.full(3, 50.0), step) for step in (3.0, 1.0)]
    monkeypatch.setattr(choice, "for_correction", lambda *_: windows)
    monkeypatch.setattr(clicks, "workers_for", lambda pieces: 1)  # one after the other, as the answers here are
    unsure, sure = (np.where(np.indices((32,) * 3)[0] < 16, value, -value) for value in (0.5, 5.0))
    good, poor = (sure, None, None), (unsure, None, None)
    if judged:  # what the network itself says of its masks counts, not its probabilities
        good, poor = (unsure, 0.8, None), (sure, 0.3, None)
    answers = iter([good, poor] if surer == 0 else [poor, good])
    monkeypatch.setattr(session, "_answer", lambda *_: next(answers))
    assert session.state_for([Point((r, a, s)), Point((r + 4, a, s))]).window == windows[surer]


def test_looks_side_by_side_give_the_mask_of_one_after_the_other(monkeypatch) -> None:
    volume, _, centre = ball_volume(shape=(60, 120, 120))
    told: list[float] = []
    masks = []
    for workers in (1, 3):
        monkeypatch.setattr(clicks, "workers_for", lambda pieces, workers=workers: workers)
        session = ClickModelSession(volume, click_package())
        told.clear()
        masks.append(session.mask_for([Point(centre)], lambda _, share: told.append(share)).full((60, 120, 120)))
        assert told == sorted(told) and told[-1] == 1.0 and len(told) > 3
    np.testing.assert_array_equal(masks[0], masks[1])
    session = ClickModelSession(volume, click_package())
    asked: list[int] = []
    with pytest.raises(Cancelled):
        session.mask_for([Point(centre)], cancelled=lambda: len(asked) > 1 or bool(asked.append(1)))
    assert len(asked) == 2, "in the middle"
    with monkeypatch.context() as patched, pytest.raises(RunError, match="not numbers"):
        patched.setattr(session.network, "forward", lambda inputs: inputs[:, :1] / 0)
        session.mask_for([Point(centre)])
    np.testing.assert_array_equal(session.mask_for([Point(centre)]).full((60, 120, 120)), masks[0])
    with monkeypatch.context() as patched, pytest.raises(RunError, match="not numbers"):
        judged_badly = lambda inputs: (inputs[:, :1], inputs[:, 0, 0, 0, 0] * float("nan"))  # noqa: E731
        patched.setattr(session.network, "answer", judged_badly, raising=False)
        session.mask_for([Point(centre), Point(centre)])


@pytest.mark.parametrize(("positive", "expected"), [(True, "either"), (False, "both")])
def test_at_another_scale_a_click_changes_the_mask_one_way(positive: bool, expected: str) -> None:
    rng = np.random.default_rng(0)
    answer, earlier = rng.random((2, 6, 6, 6)) > 0.5
    changed = answer.copy()
    _change_one_way(changed, earlier, (Point((0, 0, 0)), Point((1, 0, 0), positive)))
    np.testing.assert_array_equal(changed, answer | earlier if expected == "either" else answer & earlier)
    of_both = answer.copy()
    _change_one_way(of_both, earlier, (Point((0, 0, 0)), Point((1, 0, 0), True, True), Point((2, 0, 0), False)))
    np.testing.assert_array_equal(of_both, answer)


def test_every_point_of_a_stroke_counts_however_far_it_reaches() -> None:
    volume, ball, (r, a, s) = ball_volume(shape=(60, 120, 200), radius_mm=10.0)
    session = ClickModelSession(volume, click_package())
    angles = np.linspace(0, 2, 7)
    places = [(r + 60 * float(np.sin(angle)), a + 50 * float(np.cos(angle)), s) for angle in angles]
    stroke = [Point(place, True, number < 6) for number, place in enumerate(places)]
    mask = session.mask_for([Point((r, a, s)), *stroke]).full(ball.shape)
    alone = ClickModelSession(volume, click_package()).mask_for(stroke).full(ball.shape)
    for place in places:
        voxel = tuple(np.rint(volume.grid.ijk_of(place)[::-1]).astype(int))
        assert mask[voxel] and alone[voxel]


def test_asking_in_the_middle_of_a_stroke_changes_nothing_later() -> None:
    volume, _, (r, a, s) = ball_volume()
    begun, whole = Point((r, a, s), True, True), Point((r + 6, a, s))
    session = ClickModelSession(volume, click_package())
    session.mask_for([begun])
    asked, fresh = session.mask_for([begun, whole]), ClickModelSession(volume, click_package()).mask_for([begun, whole])
    assert asked.lower == fresh.lower
    np.testing.assert_array_equal(asked.array, fresh.array)


def test_progress_is_told_look_by_look() -> None:
    volume, _, centre = ball_volume(shape=(60, 120, 200))
    heard: list[float] = []
    ClickModelSession(volume, click_package()).mask_for([Point(centre)], progress=lambda _, share: heard.append(share))
    assert len(heard) > 4 and heard == sorted(heard) and heard[-1] == 1


def test_a_package_that_names_no_channels_takes_the_first_ones() -> None:
    volume, ball, centre = ball_volume()
    package = click_package()
    package.manifest.in_channels = len(CHANNELS) - 1
    assert overlap(ClickModelSession(volume, package).mask_for([Point(centre)]).full(ball.shape), ball) > 0.9
