"""Grid and Volume: where voxels are, and what is refused as a volume."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from volumes_support import oblique_matrix

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Grid, Volume, VolumeWarning, sanitized


@pytest.mark.parametrize("seed", range(4))
def test_indices_and_points_are_inverses(seed: int) -> None:
    grid = Grid((7, 8, 9), oblique_matrix(seed, shear=0.3))
    ijk = np.random.default_rng(seed).uniform(-5, 12, size=(2, 5, 3))
    assert np.allclose(grid.ijk_of(grid.ras_of(ijk)), ijk, atol=1e-9)
    i, j, k = 3.0, 4.0, 5.0
    assert np.allclose(grid.ras_of((i, j, k)), (grid.ijk_to_ras @ (i, j, k, 1.0))[:3])


def test_spacing_is_in_ijk_order() -> None:
    assert Grid((2, 3, 4), np.diag((0.5, -1.0, 6.0, 1.0))).spacing == (0.5, 1.0, 6.0)


def test_a_point_is_inside_up_to_half_a_voxel_beyond_the_outermost_centres() -> None:
    grid = Grid((3, 4, 5), np.diag((1.0, 2.0, 4.0, 1.0)))
    inside = [(-0.49, 0, 0), (4.49, 6.98, 8), (0, -0.99, -1.99), (4, 6, 9.99)]
    outside = [(-0.51, 0, 0), (4.51, 0, 0), (0, 7.01, 0), (0, 0, -2.01), (0, 0, 10.01), (np.nan, 0, 0)]
    assert grid.contains(inside).tolist() == [True] * len(inside)
    assert grid.contains(outside).tolist() == [False] * len(outside)
    assert grid.contains((1, 1, 1)) is True


@pytest.mark.parametrize("seed", range(4))
def test_a_cropped_grid_keeps_every_voxel_in_place(seed: int) -> None:
    grid = Grid((7, 8, 9), oblique_matrix(seed))
    cropped = grid.cropped((1, 2, 3), (5, 8, 6))
    assert cropped.shape == (4, 6, 3)
    assert np.allclose(cropped.ras_of((0, 1, 2)), grid.ras_of((3, 3, 3)))
    larger = grid.cropped((-1, -2, -3), (9, 9, 10))
    assert np.allclose(larger.ras_of((3, 2, 1)), grid.ras_of((0, 0, 0)))
    with pytest.raises(InputError, match="holds no voxel"):
        grid.cropped((1, 2, 3), (1, 8, 6))


@pytest.mark.parametrize("seed", range(4))
def test_another_spacing_covers_the_same_extent_around_the_same_middle(seed: int) -> None:
    grid = Grid((20, 31, 42), oblique_matrix(seed))
    other = grid.with_spacing((1.5, 2.0, 0.7))
    assert np.allclose(other.spacing, (1.5, 2.0, 0.7))
    assert np.allclose(other.centre_ras, grid.centre_ras)
    assert np.allclose(other.directions, grid.directions)
    extent = np.array(grid.shape[::-1]) * grid.spacing
    assert (np.abs(np.array(other.shape[::-1]) * other.spacing - extent) <= np.array((1.5, 2.0, 0.7)) / 2 + 1e-9).all()
    assert Grid((1, 1, 1), np.eye(4)).with_spacing((50, 50, 50)).shape == (1, 1, 1)
    with pytest.raises(InputError, match="three positive numbers"):
        grid.with_spacing((1.0, 0.0, 1.0))


def test_matching_grids_agree_at_the_far_corner_too() -> None:
    grid = Grid((100, 100, 100), np.eye(4))
    stretched = Grid((100, 100, 100), np.diag((1.0002, 1.0, 1.0, 1.0)))
    assert grid.matches(Grid((100, 100, 100), np.diag((1.00001, 1.0, 1.0, 1.0))))
    assert not grid.matches(stretched)
    assert grid.matches(stretched, tolerance_mm=0.1)
    assert not grid.matches(Grid((100, 100, 99), np.eye(4)))


def test_equal_grids_are_one_key() -> None:
    flipped = np.diag((1.0, 1.0, 1.0, 1.0))
    flipped[0, 1] = -0.0
    assert Grid((1, 2, 3), flipped) == Grid((1, 2, 3), np.eye(4))
    assert len({Grid((1, 2, 3), flipped), Grid((1, 2, 3), np.eye(4))}) == 1
    assert Grid((1, 2, 3), np.eye(4)) != Grid((1, 2, 3), np.diag((1, 1, 2, 1)))


def test_a_grid_cannot_be_changed_from_outside() -> None:
    matrix = np.eye(4)
    grid = Grid((1, 2, 3), matrix)
    matrix[0, 0] = 7.0
    assert grid.spacing == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        grid.ijk_to_ras[0, 0] = 7.0


def test_shear_and_handedness_are_known() -> None:
    assert Grid((1, 1, 1), oblique_matrix(0, shear=0.2)).is_sheared
    assert not Grid((1, 1, 1), oblique_matrix(0)).is_sheared
    assert Grid((1, 1, 1), oblique_matrix(1)).is_left_handed
    assert not Grid((1, 1, 1), oblique_matrix(2)).is_left_handed


BAD_MATRICES = {
    "must be 4x4, but its shape": np.eye(3),
    "not finite": np.diag((1.0, np.nan, 1.0, 1.0)),
    "spacing of zero": np.diag((1.0, 0.0, 1.0, 1.0)),
    "axes are parallel": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    "last row": np.diag((1.0, 1.0, 1.0, 2.0)),
    "matrix of numbers": np.array([["a"] * 4] * 4),
}


@pytest.mark.parametrize("reason", BAD_MATRICES)
def test_a_matrix_that_cannot_place_voxels_is_refused(reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Volume(np.zeros((2, 2, 2)), BAD_MATRICES[reason])


BAD_ARRAYS = {
    "2 dimensions": np.zeros((3, 3)),
    "5 dimensions": np.zeros((1, 1, 3, 3, 3)),
    "complex": np.zeros((2, 2, 2), complex),
    "real numbers": np.full((2, 2, 2), "a"),
    "no voxels": np.zeros((0, 2, 2)),
}


@pytest.mark.parametrize("reason", BAD_ARRAYS)
def test_an_array_that_is_no_volume_is_refused(reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Volume(BAD_ARRAYS[reason], np.eye(4))


def test_a_volume_keeps_its_array_and_counts_its_channels() -> None:
    array = np.zeros((2, 3, 4), np.int16)
    volume = Volume(array, np.eye(4))
    assert volume.array is array
    assert (volume.channels, volume.grid.shape) == (1, (2, 3, 4))
    several = volume.with_array(np.zeros((5, 2, 3, 4)))
    assert (several.channels, several.grid) == (5, volume.grid)
    with pytest.raises(InputError, match="does not fit"):
        volume.with_array(np.zeros((2, 3, 5)))


def test_foreign_byte_order_is_turned_into_the_machine_s() -> None:
    foreign = np.dtype(np.int16).newbyteorder("S")
    volume = Volume(np.arange(8).reshape(2, 2, 2).astype(foreign), np.eye(4))
    assert volume.array.dtype.isnative
    assert volume.array.ravel().tolist() == list(range(8))


def test_a_parent_transform_moves_the_volume_in_ras() -> None:
    volume = Volume(np.zeros((2, 3, 4)), oblique_matrix(3))
    parent = oblique_matrix(4)
    moved = volume.transformed(parent)
    point = volume.grid.ras_of((1, 2, 1))
    assert np.allclose(moved.grid.ras_of((1, 2, 1)), (parent @ (*point, 1.0))[:3])
    with pytest.raises(InputError, match="The transform cannot be inverted|The transform has a spacing of zero"):
        volume.transformed(np.diag((1.0, 0.0, 1.0, 1.0)))


def test_voxels_that_are_no_numbers_become_the_lowest_other_value() -> None:
    array = np.arange(60, dtype=np.float64).reshape(3, 4, 5) - 20
    array[0, 0, :4] = (np.nan, np.inf, -np.inf, 1e38)
    array[1, 0, 0] = -1e38
    with pytest.warns(VolumeWarning, match="5 of 60 voxels"):
        clean = sanitized(Volume(array, np.eye(4)))
    assert clean.array.dtype == np.float32
    bad = ~(np.abs(array) < 1e30)
    assert (clean.array[bad] == -16).all()
    assert (clean.array[~bad] == array[~bad]).all()


def test_half_precision_infinity_is_no_number_either() -> None:
    with pytest.warns(VolumeWarning, match="1 of 3 voxels"):
        assert sanitized(Volume(np.array([[[1, 2, np.inf]]], np.float16), np.eye(4))).array.ravel().tolist() == [
            1,
            2,
            1,
        ]


def test_clean_voxels_are_left_alone() -> None:
    volume = Volume(np.ones((2, 2, 2), np.float32), np.eye(4))
    assert sanitized(volume) is volume
    for kind in (np.bool_, np.int8, np.uint16, np.int32, np.uint64, np.float16, np.float64):
        assert sanitized(Volume(np.ones((2, 2, 2), kind), np.eye(4))).array.dtype == np.float32


def test_an_image_without_a_single_number_is_refused() -> None:
    with pytest.raises(InputError, match="No voxel"):
        sanitized(Volume(np.full((2, 2, 2), np.nan), np.eye(4)))


def test_importing_volumes_needs_numpy_only() -> None:
    code = "import sys; import LKSegmentLib.volumes; print(sorted({'SimpleITK', 'torch', 'scipy'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
