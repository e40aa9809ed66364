"""No click is ignored, in the window's logits and in the volume's mask."""

from __future__ import annotations

import numpy as np

from LKSegmentLib.inference.held_clicks import hold_in_logits, hold_in_mask


def test_a_click_that_the_network_ignored_gets_its_way_around_it_and_nowhere_else() -> None:
    logits = np.full((16, 16, 16), -3.0, np.float32)
    held = hold_in_logits(logits, [(5.2, 6.0, 7.4)], [True])
    assert held[5, 6, 7] > 0 and held[5, 6, 8] > held[5, 6, 12]
    assert 1 <= (held > 0).sum() <= 27, "a click must not flood"
    np.testing.assert_allclose(held[12:], -3.0, atol=1e-3)
    assert (logits == -3).all(), "the given logits must stay as they are"


def test_clicks_that_are_right_already_change_nothing() -> None:
    logits = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    logits[2, 2, 2], logits[5, 5, 5] = 2.0, -2.0
    assert hold_in_logits(logits, [(2, 2, 2), (5, 5, 5)], [True, False]) is logits


def test_of_two_clicks_that_contradict_each_other_the_later_one_holds() -> None:
    logits = np.zeros((8, 8, 8), np.float32)
    assert hold_in_logits(logits, [(4, 4, 4), (4, 4, 4)], [True, False])[4, 4, 4] < 0
    assert hold_in_logits(logits, [(4, 4, 4), (4, 4, 4)], [False, True])[4, 4, 4] > 0


def test_places_outside_of_the_window_are_passed_over() -> None:
    logits = np.zeros((8, 8, 8), np.float32)
    assert hold_in_logits(logits, [(-1, 4, 4), (4, 8, 4)], [True, True]) is logits


def test_the_voxels_of_the_volume_are_set_last() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = True
    voxels = [np.array([11.4, 21.0, 31.0]), np.array([13.0, 23.0, 33.0]), np.array([9.0, 21.0, 31.0])]
    hold_in_mask(mask, (10, 20, 30), voxels, [False, True, True])
    assert np.argwhere(mask).tolist() == [[3, 3, 3]]
