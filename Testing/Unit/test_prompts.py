"""Prompts: points, the channels they become, and simulated clicks."""

from __future__ import annotations

import numpy as np
import pytest

from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import CHANNELS, Point, PromptChannels
from LKSegmentLib.prompts.channels import robust_score
from LKSegmentLib.prompts.simulated import correcting_click, first_click


@pytest.mark.parametrize("ras", [(0, 0), (0, 0, float("nan")), ("a", 0, 0), None])
def test_a_point_is_three_finite_numbers(ras) -> None:
    with pytest.raises(InputError, match="three finite RAS"):
        Point(ras)


def test_channels_say_where_and_how_alike() -> None:
    rng = np.random.default_rng(0)
    image = np.where(np.arange(24) < 12, 0.0, 5.0)[None, None] + 0.05 * rng.normal(size=(24, 24, 24))
    channels = PromptChannels(image.astype(np.float32))
    assert channels.array.shape == (len(CHANNELS), 24, 24, 24)
    channels.add_click((12, 12, 5), True)
    channels.add_click((12, 12, 18), False)
    named = dict(zip(CHANNELS, channels.array, strict=True))
    assert np.unravel_index(named["positive clicks"].argmax(), image.shape) == (12, 12, 5)
    assert np.unravel_index(named["negative clicks"].argmax(), image.shape) == (12, 12, 18)
    assert named["similarity to positive clicks"][:, :, :9].min() > 0.5
    assert named["similarity to positive clicks"][:, :, 15:].max() < 0.1
    assert named["similarity to negative clicks"][:, :, 15:].min() > 0.5
    ranks = named["rank around first click"]
    assert ranks[:, :, 15:].min() > ranks[:, :, :9].max(), "brighter than every voxel on the side of the click"


def test_a_click_outside_the_window_says_where_only() -> None:
    channels = PromptChannels(np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32))
    channels.add_click((8, 8, 30), True)
    assert channels.array[2].max() > 0
    assert channels.array[5].max() == 0 and channels.array[1].max() == 0


def test_robust_score_of_a_constant_is_zero_and_ignores_unit_and_offset() -> None:
    assert not robust_score(np.full((8, 8, 8), 7.0)).any()
    image = np.random.default_rng(2).normal(size=(16, 16, 16))
    np.testing.assert_allclose(robust_score(image), robust_score(1000 * image - 400), atol=1e-4)


def test_simulated_clicks_go_to_the_deepest_and_to_the_largest_error() -> None:
    target = np.zeros((20, 20, 20), bool)
    target[4:15, 4:15, 4:15] = True
    assert first_click(target) == (9, 9, 9)
    mask = target.copy()
    mask[4:15, 4:15, 4:7] = False  # 3 slices missed
    mask[17:19, 17:19, 17:19] = True  # a speck too much
    voxel, positive = correcting_click(target, mask)
    assert positive and target[voxel] and not mask[voxel]
    voxel, positive = correcting_click(target, target | (np.indices(target.shape)[0] > 16))
    assert not positive and not target[voxel]
    assert correcting_click(target, target) is None
    rng = np.random.default_rng(3)
    for _ in range(20):
        voxel, positive = correcting_click(target, mask, rng)
        assert positive == bool(target[voxel]) and mask[voxel] != positive


def test_nearness_goes_through_tissue_alike_and_not_across_an_edge() -> None:
    image = np.zeros((24, 24, 24), np.float32)
    image[:, :, 11:13] = 5.0  # a wall
    image[:2] = 0.0  # with a way around it, at one end
    image += 0.02 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    channels = PromptChannels(image)
    channels.add_click((18, 12, 6), True)
    nearness = channels.array[CHANNELS.index("nearness to positive clicks")]
    assert nearness[18, 12, 6] == nearness.max() == 1
    assert nearness[18, 12, 3] > nearness[18, 12, 11] > 0, "the wall is farther than what is as far in the open"
    assert nearness[18, 12, 9] > 2 * nearness[18, 12, 15], "behind the wall is far"
    assert not channels.array[CHANNELS.index("nearness to negative clicks")].any()
    before = nearness.copy()
    channels.add_click((18, 12, 18), True)
    after = channels.array[CHANNELS.index("nearness to positive clicks")]
    assert (after >= before - 1e-6).all() and after[18, 12, 18] == 1, "a further click brings nothing farther away"


def test_nearness_is_the_same_every_time() -> None:
    image = np.random.default_rng(5).normal(size=(40, 40, 40)).astype(np.float32)
    results = []
    for _ in range(6):  # memory that was given back too early shows in some of them
        channels = PromptChannels(image, ("nearness to positive clicks",))
        channels.add_click((20, 20, 20), True)
        results.append(channels.array.copy())
    assert all(np.array_equal(result, results[0]) for result in results)


def test_channels_are_the_same_whenever_they_are_read() -> None:
    image = np.random.default_rng(3).normal(size=(16, 16, 16)).astype(np.float32)
    read, unread = PromptChannels(image), PromptChannels(image)
    for place, positive in (((4, 4, 4), True), ((12, 4, 4), False), ((4, 12, 9), True)):
        read.add_click(place, positive)
        assert read.array is not None
        unread.add_click(place, positive)
    np.testing.assert_array_equal(read.array, unread.array)


def test_a_model_gets_the_channels_it_was_trained_with() -> None:
    image = np.random.default_rng(4).normal(size=(16, 16, 16)).astype(np.float32)
    names = ("previous mask", "image", "nearness to positive clicks")
    every, some = PromptChannels(image), PromptChannels(image, names)
    for channels in (every, some):
        channels.add_click((8, 8, 8), True)
        channels.set_previous_mask(image > 1, 0)
    np.testing.assert_array_equal(some.array, every.array[[4, 0, 9]])


def _two_halves() -> np.ndarray:
    """Two halves of one tissue, hardly told apart, and another tissue around both."""
    image = np.full((24, 24, 24), 5.0, np.float32)
    image[4:20, 4:20, 2:22] = 0.0
    return image + 0.02 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)


def test_a_correction_reaches_as_far_as_its_side_of_the_mask() -> None:
    channels = PromptChannels(_two_halves())
    channels.add_click((12, 12, 6), True)
    mask = np.zeros((24, 24, 24), bool)
    mask[4:20, 4:20, 2:12] = True
    channels.set_previous_mask(mask, answered=1)
    assert not channels.array[-1].any(), "every click is answered"
    channels.add_click((12, 12, 16), True)
    to_add = channels.array[-1].copy()
    assert to_add[12, 12, 16] == to_add.max() == 1 and to_add.min() == pytest.approx(0, abs=1e-6)
    assert to_add[12, 12, 20] > 2 * to_add[12, 12, 8], "not back into the mask, which is as near"
    assert to_add[12, 12, 20] > 2 * to_add[1, 12, 20], "not into other tissue"
    channels.add_click((12, 12, 8), False)
    both = channels.array[-1]
    assert both[12, 12, 8] == both.min() == -1, "what is to be removed is told with the other sign"
    assert both[12, 12, 4] < -2 * abs(both[1, 12, 4])
    channels.set_previous_mask(mask, answered=3)
    assert not channels.array[-1].any()


def test_before_any_mask_the_correction_is_nearness() -> None:
    channels = PromptChannels(_two_halves())
    channels.add_click((12, 12, 6), True)
    nearness = channels.array[CHANNELS.index("nearness to positive clicks")]
    np.testing.assert_allclose(channels.array[-1], (nearness - 1 / 7) * 7 / 6, atol=1e-6)


def test_a_click_outside_the_window_corrects_nothing_and_is_counted() -> None:
    channels = PromptChannels(_two_halves())
    channels.add_click((12, 12, 40), True)
    assert channels.clicks == 1 and not channels.array[-1].any()
    channels.set_previous_mask(np.zeros((24, 24, 24), bool), answered=1)
    channels.add_click((12, 12, 6), True)
    assert channels.array[-1][12, 12, 6] == 1


@pytest.mark.parametrize("shape", [(17, 23, 20), (16, 16, 16)])
def test_nearness_has_the_shape_of_any_window_and_falls_evenly_in_one_tissue(shape) -> None:
    image = 0.02 * np.random.default_rng(1).normal(size=shape).astype(np.float32)
    channels = PromptChannels(image)
    channels.add_click((8, 8, 8), True)
    nearness = channels.array[CHANNELS.index("nearness to positive clicks")]
    assert nearness.shape == shape
    line = nearness[8, 8, 8:]
    assert (np.diff(line) < 0.02).all() and line[0] == 1 and line[-1] < 0.7
