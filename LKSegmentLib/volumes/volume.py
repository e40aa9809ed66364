"""The one representation of an image: an array and the matrix that places it in the world.

Arrays are (k, j, i), or (channel, k, j, i). Matrices are 4x4 float64 and take homogeneous (i, j, k) voxel
indices to (r, a, s) millimetres; integer indices are voxel centres. This file needs numpy only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from LKSegmentLib.errors import InputError

#: Values beyond this are no measurement of anything: scanners and scaling stay far below it.
LARGEST_PLAUSIBLE_VALUE = 1e30

_SMALLEST_UNIT_DETERMINANT = 1e-6  # below, two axes are taken for parallel
# Headers are written with few digits, so perpendicular axes are off by a little. Files that cannot hold shear turn
# the axes straight: over 512 voxels this much moves the last one by a quarter of a voxel.
_SHEAR_TOLERANCE = 5e-4


class VolumeWarning(UserWarning):
    """A sentence about an image that can be used, but not quite as it is in the file."""


def affine_matrix(matrix: ArrayLike, what: str = "The IJK to RAS matrix") -> NDArray[np.float64]:
    """Return `matrix` as a read-only, checked 4x4 float64 array.

    Raises InputError when it is not 4x4, not finite, not affine, or cannot be inverted (zero spacing).
    """
    try:
        checked = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be a 4x4 matrix of numbers, but it is a {type(matrix).__name__}.") from error
    if checked.shape != (4, 4):
        raise InputError(f"{what} must be 4x4, but its shape is {checked.shape}.")
    if not np.isfinite(checked).all():
        raise InputError(f"{what} holds values that are not finite numbers: the image has no usable geometry.")
    if not np.allclose(checked[3], (0.0, 0.0, 0.0, 1.0), rtol=0.0, atol=1e-9):
        raise InputError(f"{what} must have 0 0 0 1 as its last row, but it is {checked[3].tolist()}.")
    lengths = np.linalg.norm(checked[:3, :3], axis=0)
    if (lengths == 0.0).any():
        raise InputError(
            f"{what} has a spacing of zero ({_numbers(lengths)} mm along i, j, k): the image has no extent there."
        )
    if abs(np.linalg.det(checked[:3, :3] / lengths)) < _SMALLEST_UNIT_DETERMINANT:
        raise InputError(f"{what} cannot be inverted: two of its axes are parallel.")
    checked[3] = (0.0, 0.0, 0.0, 1.0)
    checked.flags.writeable = False
    return checked


def _numbers(values: ArrayLike) -> str:
    return ", ".join(f"{value:g}" for value in np.ravel(values))


def ijk_to_ras_from_lps(
    directions: NDArray[np.float64], spacing: NDArray[np.float64], origin: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ITK's geometry (directions in columns, mm, LPS) as a 4x4 IJK to RAS matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions * spacing
    matrix[:3, 3] = origin
    matrix[:2] *= -1.0
    return matrix + 0.0  # no -0.0


def transformed_points(matrix: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Apply a 4x4 affine matrix to points of shape (..., 3)."""
    given = np.asarray(points, dtype=np.float64)
    if given.ndim == 0 or given.shape[-1] != 3:
        raise InputError(f"Points must have three coordinates each, but their shape is {given.shape}.")
    result: NDArray[np.float64] = given @ matrix[:3, :3].T + matrix[:3, 3]
    return result


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels are: how many along (k, j, i), and the 4x4 matrix from (i, j, k) to (r, a, s) millimetres.

    Raises InputError for a shape without voxels or a matrix that cannot place them.
    """

    shape: tuple[int, int, int]
    ijk_to_ras: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"A grid needs at least one voxel along each of k, j, i, but its shape is {shape}.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "ijk_to_ras", affine_matrix(self.ijk_to_ras))

    def __eq__(self, other: object) -> bool:
        """Exactly the same voxels, to the last bit; see `matches` for within a tolerance."""
        if not isinstance(other, Grid):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.ijk_to_ras, other.ijk_to_ras)

    def __hash__(self) -> int:
        return hash((self.shape, (self.ijk_to_ras + 0.0).tobytes()))  # + 0.0: -0.0 equals 0.0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxel centres along (i, j, k)."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def directions(self) -> NDArray[np.float64]:
        """3x3: column n is the unit RAS vector along which index n (of i, j, k) grows."""
        result: NDArray[np.float64] = self.ijk_to_ras[:3, :3] / np.array(self.spacing)
        return result

    @property
    def lps_geometry(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """ITK's directions (3x3, in columns), spacing (3) in mm and origin (3), all in LPS."""
        to_lps = np.array((-1.0, -1.0, 1.0))
        return (
            to_lps[:, np.newaxis] * self.directions,
            np.array(self.spacing),
            to_lps * self.ijk_to_ras[:3, 3],
        )

    @property
    def ras_to_ijk(self) -> NDArray[np.float64]:
        return np.linalg.inv(self.ijk_to_ras).astype(np.float64)

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not perpendicular, which image files and scanners do not allow for."""
        cosines = self.directions.T @ self.directions - np.eye(3)
        return bool(np.abs(cosines).max() > _SHEAR_TOLERANCE)

    @property
    def is_left_handed(self) -> bool:
        return bool(np.linalg.det(self.ijk_to_ras[:3, :3]) < 0.0)

    @property
    def centre_ras(self) -> NDArray[np.float64]:
        """The middle of the grid, (r, a, s) mm."""
        return self.ras_of((np.array(self.shape[::-1]) - 1) / 2)

    @property
    def corners_ras(self) -> NDArray[np.float64]:
        """(8, 3): the centres of the eight outermost voxels, i changing fastest."""
        k, j, i = (np.array((0, size - 1)) for size in self.shape)
        kk, jj, ii = np.meshgrid(k, j, i, indexing="ij")
        return self.ras_of(np.stack((ii, jj, kk), axis=-1).reshape(8, 3))

    def ras_of(self, ijk: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (..., 3) in (i, j, k) order, fractions allowed -> RAS millimetres (..., 3)."""
        return transformed_points(self.ijk_to_ras, ijk)

    def ijk_of(self, ras: ArrayLike) -> NDArray[np.float64]:
        """RAS millimetres (..., 3) -> continuous voxel indices (..., 3) in (i, j, k) order, not rounded."""
        return transformed_points(self.ras_to_ijk, ras)

    def contains(self, ras: ArrayLike) -> Any:
        """Whether points (..., 3) lie in a voxel: within half a voxel of the outermost centres.

        A bool for one point, a bool array (...) for several; NaN is nowhere.
        """
        ijk = self.ijk_of(ras)
        size = np.array(self.shape[::-1])
        inside = ((ijk >= -0.5) & (ijk <= size - 0.5)).all(axis=-1)
        return bool(inside) if inside.ndim == 0 else inside

    def cropped(self, lower: Sequence[int], upper: Sequence[int]) -> Grid:
        """The grid of voxels lower <= (k, j, i) < upper; bounds outside this grid extend it.

        Raises InputError when the box is empty.
        """
        shape = tuple(int(end) - int(start) for start, end in zip(lower, upper, strict=True))
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"The box from {tuple(lower)} to {tuple(upper)} (k, j, i) holds no voxel.")
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 3] = self.ras_of(np.array([int(start) for start in reversed(lower)]))
        return Grid((shape[0], shape[1], shape[2]), matrix)

    def with_spacing(self, spacing: Sequence[float]) -> Grid:
        """The grid over the same extent, along the same axes, with another spacing (i, j, k) in mm.

        The shape is rounded (at least one voxel along each axis) and the middle stays where it is.
        """
        wanted = np.array([float(value) for value in spacing])
        if wanted.shape != (3,) or not np.isfinite(wanted).all() or (wanted <= 0.0).any():
            raise InputError(f"The spacing must be three positive numbers in mm, but it is {tuple(spacing)}.")
        extent = np.array(self.shape[::-1]) * np.array(self.spacing)
        size = np.maximum(1, np.floor(extent / wanted + 0.5)).astype(int)
        matrix = np.eye(4)
        matrix[:3, :3] = self.directions * wanted
        matrix[:3, 3] = self.centre_ras - matrix[:3, :3] @ ((size - 1) / 2)
        return Grid((int(size[2]), int(size[1]), int(size[0])), matrix)

    def matches(self, other: Grid, tolerance_mm: float = 0.01) -> bool:
        """Whether both grids have the same shape and no voxel is further than `tolerance_mm` from its twin."""
        if self.shape != other.shape:
            return False
        return bool(np.linalg.norm(self.corners_ras - other.corners_ras, axis=-1).max() <= tolerance_mm)


class Volume:
    """An image: voxel values and the geometry they belong to.

    `array` is (k, j, i), or (channel, k, j, i); it is kept, not copied. `ijk_to_ras` is a 4x4 matrix in mm.
    Raises InputError when the array is not 3-D or 4-D, is empty or not made of real numbers, or when the
    matrix cannot place it (not finite, zero spacing, parallel axes).
    """

    __slots__ = ("_array", "_grid")

    def __init__(self, array: ArrayLike, ijk_to_ras: ArrayLike) -> None:
        voxels = np.asarray(array)
        if voxels.ndim not in (3, 4):
            raise InputError(
                f"A volume needs a (k, j, i) or (channel, k, j, i) array, but this one has {voxels.ndim} dimensions."
            )
        if voxels.dtype.kind == "c":
            raise InputError("The voxels are complex numbers; take their magnitude (numpy.abs) first.")
        if voxels.dtype.kind not in "biuf":
            raise InputError(f"The voxels must be real numbers, but their type is {voxels.dtype}.")
        if voxels.size == 0:
            raise InputError(f"The array holds no voxels: its shape is {voxels.shape}.")
        if not voxels.dtype.isnative:
            voxels = voxels.astype(voxels.dtype.newbyteorder("="))
        self._array = voxels
        self._grid = Grid(voxels.shape[-3:], np.asarray(ijk_to_ras))

    @property
    def array(self) -> NDArray[Any]:
        return self._array

    @property
    def grid(self) -> Grid:
        return self._grid

    @property
    def ijk_to_ras(self) -> NDArray[np.float64]:
        return self._grid.ijk_to_ras

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxel centres along (i, j, k)."""
        return self._grid.spacing

    @property
    def channels(self) -> int:
        """Values held for each voxel; 1 for a (k, j, i) array."""
        return 1 if self._array.ndim == 3 else int(self._array.shape[0])

    def with_array(self, array: ArrayLike) -> Volume:
        """Other values on this grid. Raises InputError when the last three sizes differ from the grid's."""
        voxels = np.asarray(array)
        if voxels.shape[-3:] != self._grid.shape:
            raise InputError(
                f"An array of shape {voxels.shape} does not fit the volume's grid {self._grid.shape} (k, j, i)."
            )
        return Volume(voxels, self.ijk_to_ras)

    def transformed(self, matrix: ArrayLike) -> Volume:
        """The same voxels moved by a 4x4 matrix from RAS to RAS mm, as under a linear parent transform."""
        return Volume(self._array, affine_matrix(matrix, "The transform") @ self.ijk_to_ras)

    def __repr__(self) -> str:
        return f"Volume({self._array.dtype} {self._array.shape}, spacing {_numbers(self.spacing)} mm)"


def sanitized(volume: Volume) -> Volume:
    """The volume as float32 with every voxel a usable number.

    NaN, infinite and absurd voxels (beyond +-1e30) become the lowest of the others, and a VolumeWarning says
    how many. A float32 volume without such voxels is returned as it is. Raises InputError when no voxel is left.
    """
    array = volume.array
    # NaN spreads to both ends and compares false, so two passes without temporaries settle the usual case.
    with np.errstate(invalid="ignore"):
        lowest, highest = float(array.min()), float(array.max())
    if lowest >= -LARGEST_PLAUSIBLE_VALUE and highest <= LARGEST_PLAUSIBLE_VALUE:
        return volume if array.dtype == np.float32 else volume.with_array(array.astype(np.float32))
    sane = np.isfinite(array)  # integers never come here
    if float(np.finfo(array.dtype).max) > LARGEST_PLAUSIBLE_VALUE:
        with np.errstate(invalid="ignore"):
            sane &= np.abs(array) <= LARGEST_PLAUSIBLE_VALUE
    count = int(array.size - np.count_nonzero(sane))
    if count == array.size:
        raise InputError("No voxel of the image is a usable number: all are NaN, infinite or beyond 1e30.")
    lowest = float(array[sane].min())
    with np.errstate(over="ignore"):
        cleaned = array.astype(np.float32)
    cleaned[~sane] = lowest
    warnings.warn(
        f"{count} of {array.size} voxels are NaN, infinite or beyond 1e30; "
        f"they count as the lowest other value, {lowest:g}.",
        VolumeWarning,
        stacklevel=2,
    )
    return volume.with_array(cleaned)
