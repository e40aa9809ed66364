"""Slicer's Grow from seeds with clicks as seeds: the same mask however the clicks came."""

from __future__ import annotations

import numpy as np
import pytest

from LKSegmentLib.prompts import Point
from LKSegmentLib.scene.grow_from_seeds import GrowFromSeeds
from LKSegmentLib.volumes import Volume


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Two balls of the same brightness that touch, in noise."""
    k, j, i = np.indices((32, 32, 32))
    balls = ((k - 16) ** 2 + (j - 16) ** 2 + (i - 11) ** 2 < 36) | ((k - 16) ** 2 + (j - 16) ** 2 + (i - 22) ** 2 < 36)
    noise = np.random.default_rng(0).normal(0, 5, balls.shape)
    return Volume((100.0 * balls + noise).astype(np.float32), np.diag([-1.5, -1.5, 1.5, 1]))


def click(volume: Volume, k: int, j: int, i: int, positive: bool = True) -> Point:
    r, a, s = (float(value) for value in volume.grid.ras_of((i, j, k)))
    return Point((r, a, s), positive)


def test_clicks_one_by_one_give_the_mask_of_all_at_once(volume: Volume) -> None:
    clicks = [click(volume, 16, 16, 11), click(volume, 16, 16, 23, False), click(volume, 4, 16, 11, False)]
    grow = GrowFromSeeds()
    for count in range(1, 4):
        mask = grow(volume, clicks[:count])
        assert np.array_equal(mask, GrowFromSeeds()(volume, clicks[:count]))
    assert mask[16, 16, 11] and not mask[16, 16, 23] and not mask[4, 16, 11]


def test_an_undone_click_and_another_volume_start_anew(volume: Volume) -> None:
    inside, outside = click(volume, 16, 16, 11), click(volume, 16, 16, 23, False)
    grow = GrowFromSeeds()
    alone = grow(volume, [inside])
    assert grow(volume, [inside, outside]).sum() < alone.sum()
    assert np.array_equal(grow(volume, [inside]), alone)
    other = volume.with_array(volume.array[:, :, ::-1].copy())
    assert np.array_equal(grow(other, [inside, outside]), GrowFromSeeds()(other, [inside, outside]))
