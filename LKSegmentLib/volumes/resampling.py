"""Values of a volume on another grid, in world space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes.volume import Grid, Volume

if TYPE_CHECKING:
    import SimpleITK

Interpolation = Literal["linear", "nearest", "bspline"]


def resample(
    volume: Volume,
    grid: Grid,
    interpolation: Interpolation = "linear",
    fill: float | None = None,
    antialias: bool = False,
) -> Volume:
    """The volume's values at the voxel centres of `grid`; shape (k, j, i) or (channel, k, j, i) as given.

    The value type stays: integers are rounded, and clipped to their range. Within half a voxel of the volume's
    outermost centres the edge value holds; beyond, `fill`: if None, 0 for "nearest" (labels) and the volume's
    lowest value otherwise. `antialias` smooths first along axes that get coarser, with the Gaussian of
    Cardoso et al., "Scale factor point spread function matching: beyond aliasing in image resampling",
    MICCAI 2015; it is for images, not for "nearest". Any two invertible geometries will do: left-handed,
    oblique, sheared. NaN voxels spread to their neighbours: see `sanitized`.

    Raises InputError for an unknown interpolation, or `antialias` with "nearest".
    """
    if interpolation not in ("linear", "nearest", "bspline"):
        raise InputError(f'Unknown interpolation "{interpolation}": choose linear, nearest or bspline.')
    if antialias and interpolation == "nearest":
        raise InputError('Smoothing against aliasing would mix labels: use antialias with "linear" or "bspline".')
    if grid == volume.grid:
        return volume.with_array(volume.array.copy())
    background = _fill_value(volume.array, fill, interpolation)
    # Both images are put in index space and the whole geometry into one affine transform: this holds for
    # sheared axes too, which image directions need not.
    steps = volume.grid.ras_to_ijk @ grid.ijk_to_ras
    sigmas = _antialias_sigmas(steps) if antialias else (0.0, 0.0, 0.0)
    channels = volume.array if volume.array.ndim == 4 else volume.array[np.newaxis]
    result = np.empty((len(channels), *grid.shape), dtype=volume.array.dtype)
    for index, channel in enumerate(channels):
        result[index] = _resampled_channel(channel, steps, grid.shape, interpolation, background, sigmas)
    return Volume(result if volume.array.ndim == 4 else result[0], grid.ijk_to_ras)


def _fill_value(array: NDArray[Any], fill: float | None, interpolation: str) -> float:
    if fill is not None and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        return float(np.clip(fill, limits.min, limits.max))
    if fill is not None:
        return float(fill)
    return 0.0 if interpolation == "nearest" else float(array.min())


def _antialias_sigmas(steps: NDArray[np.float64]) -> tuple[float, float, float]:
    """Standard deviations in input voxels along i, j, k.

    `steps` (4x4) takes output to input voxel indices. The full width at half maximum of the smoothed point
    spread is to be one output voxel; the input's own, one input voxel, is subtracted in variance.
    """
    full_width = 2.0 * math.sqrt(2.0 * math.log(2.0))
    factors = np.linalg.norm(steps[:3, :3], axis=1)
    i, j, k = (math.sqrt(max(float(factor) ** 2 - 1.0, 0.0)) / full_width for factor in factors)
    return i, j, k


def _resampled_channel(
    channel: NDArray[Any],
    steps: NDArray[np.float64],
    shape: tuple[int, int, int],
    interpolation: str,
    fill: float,
    sigmas: tuple[float, float, float],
) -> NDArray[Any]:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(_as_supported(channel))
    if max(sigmas) > 0.0:
        # Float: integers would be rounded twice. Kernel width: 4 standard deviations to either side.
        image = SimpleITK.Cast(image, SimpleITK.sitkFloat64 if channel.dtype == np.float64 else SimpleITK.sitkFloat32)
        width = 2 * math.ceil(4.0 * max(sigmas)) + 1
        image = SimpleITK.DiscreteGaussian(image, [sigma**2 for sigma in sigmas], width, 0.001, False)
    output = SimpleITK.Resample(
        image,
        [int(size) for size in reversed(shape)],
        _affine_transform(steps),
        _interpolator(interpolation),
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        fill,
        image.GetPixelID(),
    )
    values: NDArray[Any] = SimpleITK.GetArrayViewFromImage(output)
    if values.dtype.kind == "f" and channel.dtype.kind in "iu":
        limits = np.iinfo(channel.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(channel.dtype)


def _as_supported(channel: NDArray[Any]) -> NDArray[Any]:
    """SimpleITK knows neither booleans nor half precision."""
    if channel.dtype == np.bool_:
        return channel.astype(np.uint8)
    if channel.dtype == np.float16:
        return channel.astype(np.float32)
    return np.ascontiguousarray(channel)


def _affine_transform(steps: NDArray[np.float64]) -> SimpleITK.AffineTransform:
    import SimpleITK

    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(steps[:3, :3].ravel().tolist())
    transform.SetTranslation(steps[:3, 3].tolist())
    return transform


def _interpolator(interpolation: str) -> int:
    import SimpleITK

    known: dict[str, int] = {
        "linear": SimpleITK.sitkLinear,
        "nearest": SimpleITK.sitkNearestNeighbor,
        "bspline": SimpleITK.sitkBSpline,
    }
    return known[interpolation]
