"""Windows over volumes: sampling in and spreading out at the right place."""

from __future__ import annotations

import numpy as np
import pytest

from LKSegmentLib.inference.click_window import ClickWindow
from LKSegmentLib.volumes import Grid


def oblique_grid(shape=(30, 40, 50), spacing=(0.8, 1.0, 2.5)) -> Grid:
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(spacing)
    matrix[:3, 3] = (10, -20, 30)
    return Grid(shape, matrix)


def linear_image(grid: Grid) -> np.ndarray:
    """Intensity = a linear function of RAS, which linear interpolation reproduces exactly."""
    k, j, i = np.indices(grid.shape)
    ras = grid.ras_of(np.stack((i, j, k), -1))
    return ras @ np.array([1.0, -2.0, 0.5]) + 7


@pytest.mark.parametrize("step", [0.7, 1.0, 1.6])
def test_sampling_reproduces_a_linear_function_of_the_world(step: float) -> None:
    grid = oblique_grid()
    window = ClickWindow(grid, (14.3, 20.2, 25.7), step, 16)
    sampled = window.sample(linear_image(grid))
    np.testing.assert_allclose(sampled, linear_image(window.window_grid), atol=1e-3)


def test_spreading_returns_to_the_voxels_of_the_volume() -> None:
    grid = oblique_grid()
    window = ClickWindow(grid, (14.3, 20.2, 25.7), 1.2, 24)
    values = linear_image(window.window_grid).astype(np.float32)
    k, j, i = window.volume_box
    inner = (slice(1, -1),) * 3  # the outermost voxels may lie up to half a step beyond the last window voxel
    np.testing.assert_allclose(window.spread(values)[inner], linear_image(grid)[k, j, i][inner], atol=1e-3)


def test_going_coarser_averages_noise() -> None:
    grid = Grid((64, 64, 64), np.eye(4))
    noise = np.random.default_rng(5).normal(size=grid.shape)
    coarse = ClickWindow(grid, (31.5, 31.5, 31.5), 4.0, 16).sample(noise)
    assert coarse[2:-2, 2:-2, 2:-2].std() < 0.3


def test_beyond_the_volume_lies_its_lowest_value() -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    window = ClickWindow(grid, (4.5, 4.5, 4.5), 1.0, 16)
    sampled = window.sample(np.arange(1000.0).reshape(10, 10, 10))
    assert sampled.shape == (16, 16, 16)
    assert (sampled[:3] == 0).all() and (sampled[-3:] == 0).all()
    assert window.covers_volume and window.outermost_inside() == []


def test_unusable_voxels_do_not_spread() -> None:
    grid = Grid((16, 16, 16), np.eye(4))
    image = np.ones(grid.shape)
    image[8, 8, 8], image[3, 3, 3] = np.nan, 1e38
    assert (ClickWindow(grid, (7.5, 7.5, 7.5), 1.0, 16).sample(image) == 1).all()


def test_a_window_knows_where_the_volume_goes_on() -> None:
    grid = Grid((64, 64, 64), np.eye(4))
    window = ClickWindow(grid, (7.5, 31.5, 56.5), 1.0, 16)
    assert set(window.outermost_inside()) == {(0, 15), (1, 0), (1, 15), (2, 0)}
