"""Resampling: right in world space between any two grids."""

from __future__ import annotations

import numpy as np
import pytest
from volumes_support import oblique_matrix

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Grid, Volume, canonical_axes, resample


def in_world(ras: np.ndarray) -> np.ndarray:
    """A value for each RAS point that linear interpolation reproduces exactly."""
    return 3.0 + ras @ np.array((0.5, -0.25, 0.125))


def centres(grid: Grid) -> np.ndarray:
    """(k, j, i, 3) RAS of all voxel centres."""
    kji = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return grid.ras_of(kji[..., ::-1])


def around(point: np.ndarray, shape: tuple[int, int, int], matrix: np.ndarray) -> Grid:
    """A grid of that shape and those axes with its middle at `point`."""
    matrix = matrix.copy()
    matrix[:3, 3] += point - Grid(shape, matrix).centre_ras
    return Grid(shape, matrix)


def within_centres(grid: Grid, ras: np.ndarray) -> np.ndarray:
    ijk = grid.ijk_of(ras)
    return ((ijk >= 0) & (ijk <= np.array(grid.shape[::-1]) - 1)).all(axis=-1)


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("shear", [0.0, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_a_function_of_ras_is_found_again_on_any_grid(seed: int, shear: float, interpolation: str) -> None:
    source = Grid((24, 25, 26), oblique_matrix(seed, shear))
    target = around(source.centre_ras, (11, 12, 13), oblique_matrix(seed + 10, shear))
    volume = Volume(in_world(centres(source)), source.ijk_to_ras)
    result = resample(volume, target, interpolation, fill=-1e6)
    assert result.grid == target
    # spline coefficients near the border bend what is linear inside
    margin = 0 if interpolation == "linear" else 6
    core = source.cropped((margin,) * 3, tuple(size - margin for size in source.shape))
    points = centres(target)
    known = within_centres(core, points)
    assert known.sum() > 50
    assert np.allclose(result.array[known], in_world(points)[known], atol=1e-2 if margin else 1e-6)
    assert (result.array[~source.contains(points)] == -1e6).all()


@pytest.mark.parametrize("seed", range(4))
def test_nearest_takes_the_value_of_the_closest_index(seed: int) -> None:
    source = Grid((9, 10, 11), oblique_matrix(seed, 0.3))
    labels = np.random.default_rng(seed).integers(0, 60000, source.shape).astype(np.uint16)
    target = around(source.centre_ras, (12, 12, 12), oblique_matrix(seed + 20))
    result = resample(Volume(labels, source.ijk_to_ras), target, "nearest")
    points = centres(target)
    inside = source.contains(points)
    kji = np.clip(np.rint(source.ijk_of(points[inside])[:, ::-1]).astype(int), 0, np.array(source.shape) - 1)
    assert result.array.dtype == np.uint16
    assert (result.array[inside] == labels[tuple(kji.T)]).all()
    assert (result.array[~inside] == 0).all()


def test_beyond_the_image_lies_its_lowest_value_unless_told() -> None:
    volume = Volume(np.full((3, 3, 3), 40, np.int16) - np.eye(3, dtype=np.int16), np.eye(4))
    far = Grid((2, 2, 2), around(np.array((90.0, 0, 0)), (2, 2, 2), np.eye(4)).ijk_to_ras)
    assert (resample(volume, far).array == 39).all()
    assert (resample(volume, far, "nearest").array == 0).all()
    assert (resample(volume, far, fill=-1024).array == -1024).all()


def test_the_same_grid_gives_the_same_values_in_an_array_of_its_own() -> None:
    volume = Volume(np.arange(27.0).reshape(3, 3, 3), oblique_matrix(1))
    result = resample(volume, volume.grid, "bspline")
    assert (result.array == volume.array).all()
    assert result.array is not volume.array


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "f4", "f8"])
def test_value_types_stay_and_integers_are_rounded(kind: str) -> None:
    volume = Volume(np.arange(8).reshape(2, 2, 2).astype(kind), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 0.25
    result = resample(volume, Grid((2, 2, 1), shifted)).array
    assert result.dtype == np.dtype(kind)
    expected = [0.25, 2.25, 4.25, 6.25] if result.dtype.kind == "f" else [0, 2, 4, 6]
    assert result.ravel().tolist() == expected


def test_masks_half_precision_and_channels_are_resampled_too() -> None:
    mask = np.zeros((2, 4, 4, 4), bool)
    mask[1, 1:3, 1:3, 1:3] = True
    coarse = Grid((2, 2, 2), np.diag((2.0, 2.0, 2.0, 1.0)))
    result = resample(Volume(mask, np.eye(4)), coarse, "nearest")
    assert result.array.dtype == np.bool_
    assert result.array.shape == (2, 2, 2, 2)
    assert np.argwhere(result.array).tolist() == [[1, 1, 1, 1]]
    half = Volume(np.ones((4, 4, 4), np.float16), np.eye(4))
    assert resample(half, coarse).array.dtype == np.float16


def test_antialiasing_removes_what_the_coarser_grid_cannot_hold() -> None:
    checkers = (np.indices((24, 24, 24)).sum(axis=0) % 2).astype(np.float32)
    volume = Volume(checkers, np.eye(4))
    coarse = volume.grid.with_spacing((3.0, 3.0, 3.0))
    aliased = resample(volume, coarse).array
    smoothed = resample(volume, coarse, antialias=True).array
    assert aliased.std() > 0.4
    assert np.abs(smoothed - 0.5).max() < 0.01
    # what is smooth stays, and no axis that gets finer is touched
    ramp = Volume(in_world(centres(volume.grid)).astype(np.float32), np.eye(4))
    inner = (slice(2, -2),) * 3
    assert np.allclose(resample(ramp, coarse, antialias=True).array[inner], in_world(centres(coarse))[inner], atol=1e-3)
    finer = volume.grid.with_spacing((0.5, 0.5, 0.5))
    assert (resample(volume, finer, antialias=True).array == resample(volume, finer).array).all()


def test_antialiasing_smooths_along_the_axis_that_gets_coarser_only() -> None:
    impulse = np.zeros((21, 21, 21), np.float32)
    impulse[10, 10, 10] = 1.0
    coarse = Grid((7, 21, 21), np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [0, 0, 0, 1]]))
    result = resample(Volume(impulse, np.eye(4)), coarse, antialias=True).array
    assert np.argwhere(result > 1e-6)[:, 1:].tolist() == [[10, 10]] * np.count_nonzero(result > 1e-6)
    assert 0.2 < result.max() < 0.6


def test_a_single_slice_and_a_thin_volume_are_resampled() -> None:
    volume = Volume(np.full((1, 5, 5), 7.0, np.float32), np.diag((1.0, 1.0, 6.0, 1.0)))
    finer = volume.grid.with_spacing((1.0, 1.0, 2.0))
    assert finer.shape == (3, 5, 5)
    assert (resample(volume, finer, fill=0.0).array == 7.0).all()
    assert (resample(volume, volume.grid.with_spacing((5.0, 5.0, 6.0)), antialias=True).array == 7.0).all()


def test_canonical_axes_and_resampling_agree() -> None:
    volume = Volume(np.random.default_rng(0).normal(size=(5, 6, 7)), oblique_matrix(5))
    axis_order = canonical_axes(volume.grid)
    assert np.allclose(resample(volume, axis_order.canonical).array, axis_order.apply_array(volume.array), atol=1e-9)


def test_wrong_wishes_are_refused() -> None:
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(InputError, match="Unknown interpolation"):
        resample(volume, volume.grid, "cubic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mix labels"):
        resample(volume, volume.grid, "nearest", antialias=True)


@pytest.mark.parametrize(("fill", "expected"), [(-1024, 0), (70000, 65535), (7, 7)])
def test_a_fill_beyond_the_value_type_becomes_its_nearest_value(fill: float, expected: int) -> None:
    volume = Volume(np.full((4, 4, 4), 100, np.uint16), np.eye(4))
    assert resample(volume, Grid((8, 8, 8), np.eye(4)), fill=fill).array[-1, -1, -1] == expected
