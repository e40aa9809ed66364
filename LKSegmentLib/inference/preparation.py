"""From an image to what a network expects, and the way back: axes, intensities, spacing.

The order is that of nnU-Net: values are scaled on the image's own voxels, with statistics of the whole volume,
and then resampled; so the result does not depend on how the volume is cut into windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages import Channel, Intensity, Manifest
from LKSegmentLib.volumes import AxisOrder, Grid, Volume, canonical_axes, resample, sanitized

# Grids whose voxel centres stay this close (in voxels) are the same grid: nothing is resampled.
SAME_GRID = 0.02


@dataclass(frozen=True)
class Scaling:
    """An intensity rule with the numbers of one volume filled in: clip to low..high, times gain, plus offset."""

    low: float
    high: float
    gain: float
    offset: float
    zeros_become: float | None = None

    def apply(self, array: NDArray[np.float32]) -> None:
        """Scale a float32 array of any shape in place."""
        zeros = array == 0 if self.zeros_become is not None else None
        if np.isfinite((self.low, self.high)).any():
            np.clip(array, self.low, self.high, out=array)
        if (self.gain, self.offset) != (1.0, 0.0):
            array *= np.float32(self.gain)
            array += np.float32(self.offset)
        if zeros is not None:
            array[zeros] = self.zeros_become


def scaling_for(array: NDArray[np.float32], rule: Intensity) -> Scaling:
    """Measure a whole channel (k, j, i) and return its scaling. A constant image becomes a constant, not NaN."""
    if rule.rule == "none":
        return Scaling(-np.inf, np.inf, 1.0, 0.0)
    if rule.rule == "ct":
        return onto_range(*rule.window, rule)
    if rule.rule == "standard":
        return Scaling(*rule.window, 1.0 / rule.std, -rule.mean / rule.std)
    measured = array[array != 0] if rule.nonzero else array
    if measured.size == 0:
        measured = array
    zeros_become = rule.padding if rule.nonzero else None
    if rule.rule == "percentile":
        low, high = np.percentile(measured, (rule.lower, rule.upper))
        return onto_range(float(low), float(high), rule, zeros_become)
    mean = float(measured.mean(dtype=np.float64))
    deviation = float(measured.std(dtype=np.float64))
    gain = 1.0 / deviation if deviation > 1e-8 * max(1.0, abs(mean)) else 1.0
    return Scaling(-np.inf, np.inf, gain, -mean * gain, zeros_become)


def onto_range(low: float, high: float, rule: Intensity, zeros_become: float | None = None) -> Scaling:
    """Return the scaling that takes low..high to the rule's range; to its low end when they coincide."""
    bottom, top = rule.range
    gain = (top - bottom) / (high - low) if high > low else 0.0
    return Scaling(low, high, gain, bottom - low * gain, zeros_become)


@dataclass(frozen=True)
class Preparation:
    """Where a volume's voxels go: its own grid, canonical axes, and the grid the network works on."""

    order: AxisOrder
    working: Grid

    @property
    def resampled(self) -> bool:
        """Whether the working grid differs from the canonical one."""
        return self.working != self.order.canonical

    def source_of(self, axis: int) -> tuple[float, float]:
        """Return (step, offset) along canonical array axis 0, 1, 2 (k, j, i): working index = step * index + offset."""
        steps = self.working.ras_to_ijk @ self.order.canonical.ijk_to_ras
        return float(steps[2 - axis, 2 - axis]), float(steps[2 - axis, 3])


def preparation_for(grid: Grid, spacing: Sequence[float] | None) -> Preparation:
    """Return how volumes on `grid` reach canonical axes and `spacing` (x, y, z mm; None keeps their own).

    Where the spacing already fits, the working grid is the canonical grid itself and nothing is interpolated.
    """
    order = canonical_axes(grid)
    canonical = order.canonical
    if spacing is None:
        return Preparation(order, canonical)
    working = canonical.with_spacing(spacing)
    if canonical.matches(working, SAME_GRID * min(canonical.spacing)):
        working = canonical
    return Preparation(order, working)


@dataclass(frozen=True)
class PreparedVolume:
    """What the network sees: float32 (channel, k, j, i) on `preparation.working`, and the values outside it."""

    array: NDArray[np.float32]
    preparation: Preparation
    padding: tuple[float, ...]


def prepared_volume(
    volume: Volume, manifest: Manifest, progress: Callable[[float], None] | None = None
) -> PreparedVolume:
    """Return the volume as the package wants it. The volume itself is not changed.

    Raises InputError when the volume has another number of channels than the package.
    """
    check_channels(volume, manifest.channels)
    preparation = preparation_for(volume.grid, manifest.spacing)
    array = volume.array if volume.array.ndim == 4 else volume.array[np.newaxis]
    result = np.empty((len(array), *preparation.working.shape), np.float32)
    for number, channel in enumerate(manifest.channels):
        result[number] = prepared_channel(volume.with_array(array[number]), channel.intensity, preparation)
        if progress is not None:
            progress((number + 1) / len(array))
    return PreparedVolume(result, preparation, tuple(channel.intensity.padding for channel in manifest.channels))


def prepared_channel(channel: Volume, rule: Intensity, preparation: Preparation) -> NDArray[np.float32]:
    """Return one (k, j, i) channel scaled, on the working grid."""
    canonical = sanitized(preparation.order.apply(channel))
    values = canonical.array
    if np.may_share_memory(values, channel.array):
        values = values.copy()
    scaling_for(values, rule).apply(values)
    if not preparation.resampled:
        return values
    moved: NDArray[np.float32] = resample(canonical.with_array(values), preparation.working, "linear").array
    return moved


def check_channels(volume: Volume, channels: Sequence[Channel]) -> None:
    """InputError unless the volume has one channel for each that the package describes."""
    if volume.channels != len(channels):
        names = ", ".join(channel.name for channel in channels)
        raise InputError(
            f"The model wants {len(channels)} image channel{'s' if len(channels) > 1 else ''} ({names}), "
            f"and the volume has {volume.channels}: choose another volume or another model."
        )
