"""Canonical axes: closest to RAS, nothing resampled, and back to the last bit."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from LKSegmentLib.volumes import Grid, Volume, canonical_axes

ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def oriented_matrix(order: tuple[int, ...], signs: tuple[int, ...], tilt: float = 0.0) -> np.ndarray:
    """IJK to RAS where index n runs along RAS axis order[n] with that sign, turned by up to `tilt` radians."""
    generator = np.random.default_rng(abs(hash((order, signs))) % 2**32)
    matrix = np.eye(4)
    matrix[:3, :3] = 0.0
    for index, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[axis, index] = sign
    a, b, c = generator.uniform(-tilt, tilt, size=3)
    turn = np.eye(3) + np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    turn, _ = np.linalg.qr(turn)
    turn *= np.sign(np.diag(turn))
    matrix[:3, :3] = turn @ matrix[:3, :3] @ np.diag((0.7, 1.1, 2.9))
    matrix[:3, 3] = generator.uniform(-200, 200, size=3)
    return matrix


def numbered_volume(matrix: np.ndarray, shape: tuple[int, ...] = (3, 4, 5)) -> Volume:
    return Volume(np.arange(np.prod(shape), dtype=np.int32).reshape(shape), matrix)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_48_orientations_become_ras_and_come_back_bit_for_bit(
    order: tuple[int, ...], signs: tuple[int, ...], tilt: float
) -> None:
    volume = numbered_volume(oriented_matrix(order, signs, tilt))
    axis_order = canonical_axes(volume.grid)
    canonical = axis_order.apply(volume)
    assert (np.argmax(np.abs(canonical.grid.directions), axis=0) == (0, 1, 2)).all()
    assert (np.diag(canonical.grid.directions) > 0.0).all()
    assert not canonical.grid.is_left_handed
    assert canonical.array.flags.c_contiguous
    # every value is still where it was in the world
    kji = np.argwhere(volume.array >= 0)
    ijk = np.rint(canonical.grid.ijk_of(volume.grid.ras_of(kji[:, ::-1]))).astype(int)
    assert np.allclose(canonical.grid.ras_of(ijk), volume.grid.ras_of(kji[:, ::-1]), atol=1e-9)
    assert (canonical.array[tuple(ijk[:, ::-1].T)] == volume.array[tuple(kji.T)]).all()
    back = axis_order.undo(canonical)
    assert back.array.tobytes() == volume.array.tobytes()
    assert back.ijk_to_ras.tobytes() == volume.ijk_to_ras.tobytes()
    assert axis_order.apply(back).ijk_to_ras.tobytes() == canonical.ijk_to_ras.tobytes()


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
def test_channels_crops_and_other_grids_with_the_same_axes_follow(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    matrix = oriented_matrix(order, signs, 0.2)
    axis_order = canonical_axes(Grid((3, 4, 5), matrix))
    several = numbered_volume(matrix, (2, 3, 4, 5))
    assert (axis_order.undo_array(axis_order.apply_array(several.array)) == several.array).all()
    assert (axis_order.apply(several).array[1] == axis_order.apply_array(several.array[1])).all()
    crop = Volume(several.array[0, 1:3, 0:3, 2:5], several.grid.cropped((1, 0, 2), (3, 3, 5)).ijk_to_ras)
    turned = axis_order.apply(crop)
    inside = axis_order.apply(several.with_array(several.array[0]))
    place = np.rint(inside.grid.ijk_of(turned.grid.ras_of((0, 0, 0)))).astype(int)[::-1]
    box = tuple(slice(start, start + size) for start, size in zip(place, turned.grid.shape, strict=True))
    assert (turned.array == inside.array[box]).all()
    back = axis_order.undo(turned)
    assert (back.array == crop.array).all()
    assert back.grid.matches(crop.grid, 1e-9)


def test_axes_that_are_canonical_already_are_not_copied() -> None:
    volume = numbered_volume(oriented_matrix((0, 1, 2), (1, 1, 1), 0.1))
    axis_order = canonical_axes(volume.grid)
    assert axis_order.is_identity
    assert np.shares_memory(axis_order.apply(volume).array, volume.array)


def test_sheared_axes_still_find_their_order() -> None:
    matrix = oriented_matrix((2, 0, 1), (1, -1, 1))
    matrix[:3, 1] += 0.4 * matrix[:3, 0]
    volume = numbered_volume(matrix)
    axis_order = canonical_axes(volume.grid)
    assert axis_order.axes == (1, 2, 0)
    assert axis_order.undo(axis_order.apply(volume)).ijk_to_ras.tobytes() == volume.ijk_to_ras.tobytes()


@pytest.mark.parametrize("angle", [np.pi / 4, -np.pi / 4, 3 * np.pi / 4])
def test_exactly_diagonal_axes_have_one_answer(angle: float) -> None:
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    axis_order = canonical_axes(Grid((3, 4, 5), matrix))
    assert sorted(axis_order.axes) == [0, 1, 2]
    assert (np.diag(axis_order.canonical.directions) > 0.0).all()
