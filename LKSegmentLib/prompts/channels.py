"""Clicks → the input channels of a click model, on one window of isotropic voxels.

Intensity is told three ways, since one scale does not serve air, bone and two soft tissues at once: over the whole
window, relative to what surrounds the first click, and as similarity to each click. The similarity channels are what
makes clicks count; they are measured once against the contrast around the click and once against the noise there.
What is alike may lie elsewhere, so the nearness channels measure the way to the next click through tissue alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

CHANNELS = (
    "image",  # robust z-score of the window, clipped to ±4
    "rank around first click",  # rank of the image among the voxels around the first click, minus the click's own
    "positive clicks",
    "negative clicks",
    "previous mask",
    "similarity to positive clicks",
    "similarity to negative clicks",
    "noise-scaled similarity to positive clicks",
    "noise-scaled similarity to negative clicks",
    "nearness to positive clicks",  # along the shortest way that crosses few edges and little unlike tissue
    "nearness to negative clicks",
)

_SMOOTHING = 1.0  # voxels; the image in which similarity is measured
_TOLERANCE = 0.35  # robust standard deviations of the surroundings of the click
_NEAR, _FAR = 2.0, 12.0  # voxels; a click is a narrow Gaussian plus a broad exponential
_NEIGHBOURHOOD = 2  # voxels; half edge of the cube that tells the value and the noise at a click
_SURROUNDINGS = 14  # voxels; half edge of the cube in which contrast and ranks are measured
_LEAST_NOISE = 0.01  # robust deviations of the window; keeps noise-free images from an infinitely sharp similarity
_SLOWEST = 0.05  # speed of the front through what is unlike, where 1 is a voxel a unit of time in what is alike
_HALF_NEAR = 12.0  # time at which nearness is a half
_LATEST = 72.0  # time at which the front stops

Array = NDArray[np.float32]
Voxel = tuple[int, int, int]


class PromptChannels:
    """The channels of one window; clicks and masks are added as they come.

    Args:
        image: ``(k, j, i)`` intensities of any unit, finite.
        names: which of ``CHANNELS`` a model takes, in its order.
    """

    def __init__(self, image: NDArray[np.floating], names: Sequence[str] = CHANNELS) -> None:
        self._wanted = [CHANNELS.index(name) for name in names]
        normalised = robust_score(image)
        self._array: Array = np.zeros((len(CHANNELS), *image.shape), np.float32)
        self._array[0] = normalised
        self._smoothed = ndimage.gaussian_filter(normalised, _SMOOTHING, mode="nearest")
        self._axes = [np.arange(edge, dtype=np.float32) for edge in image.shape]
        self._has_reference = False
        self._wants_nearness = any(9 + sign in self._wanted for sign in (0, 1))
        if self._wants_nearness:
            self._steepness = ndimage.gaussian_gradient_magnitude(normalised, _SMOOTHING, mode="nearest")
            self._speed: Array = np.full((2, *image.shape), _SLOWEST, np.float32)
        self._starts: tuple[list[Voxel], list[Voxel]] = ([], [])
        self._is_late = [False, False]  # whether clicks came since nearness was measured

    @property
    def array(self) -> Array:
        """The channels ``(len(names), k, j, i)``."""
        for sign in (0, 1):
            if self._is_late[sign] and 9 + sign in self._wanted:
                self._array[9 + sign] = _nearness(self._speed[sign], self._starts[sign])
                self._is_late[sign] = False
        return self._array if self._wanted == list(range(len(CHANNELS))) else self._array[self._wanted]

    def add_click(self, position: tuple[float, float, float], positive: bool) -> None:
        """Add a click at ``position`` (k, j, i) in voxels of the window.

        A click outside of the window says where, but nothing about intensity: the window does not show it.
        """
        sign = 0 if positive else 1
        offsets = [axis - centre for axis, centre in zip(self._axes, position, strict=True)]
        squared = (
            np.square(offsets[0])[:, None, None] + np.square(offsets[1])[:, None] + np.square(offsets[2])
        ).astype(np.float32)
        near = np.exp(squared * np.float32(-0.5 / _NEAR**2))
        far = np.exp(np.sqrt(squared) * np.float32(-1 / _FAR))
        np.maximum(self._array[2 + sign], 0.5 * (near + far), out=self._array[2 + sign])
        if not all(-0.5 <= place <= edge - 0.5 for place, edge in zip(position, self._smoothed.shape, strict=True)):
            return
        near_voxels = self._smoothed[self._cube(position, _NEIGHBOURHOOD)]
        value = np.float32(np.median(near_voxels))
        noise = max(float(near_voxels.std()), _LEAST_NOISE)
        quantiles = np.quantile(self._smoothed[self._cube(position, _SURROUNDINGS)], np.linspace(0, 1, 65))
        contrast = max(float(np.clip(quantiles, quantiles[6], quantiles[-7]).std()), _LEAST_NOISE)
        difference = np.abs(self._smoothed - value)
        alike = np.exp(difference * np.float32(-1 / (_TOLERANCE * contrast)))
        np.maximum(self._array[5 + sign], alike, out=self._array[5 + sign])
        alike_in_noise = np.exp(np.square(difference / np.float32(2 * noise)) * np.float32(-0.5))
        np.maximum(self._array[7 + sign], alike_in_noise, out=self._array[7 + sign])
        if self._wants_nearness:
            self._start_front(position, sign, alike_in_noise)
        if not self._has_reference:
            ranks = np.linspace(-1, 1, 65)
            self._array[1] = np.interp(self._array[0], quantiles, ranks) - np.interp(value, quantiles, ranks)
            self._has_reference = True

    def _start_front(self, position: tuple[float, float, float], sign: int, alike_in_noise: Array) -> None:
        """A front starts at the click too, fast through tissue like it and slow across edges."""
        nearby = max(float(np.median(self._steepness[self._cube(position, _NEIGHBOURHOOD + 1)])), _LEAST_NOISE)
        smooth = 1 / (1 + np.square(self._steepness * np.float32(0.5 / nearby)))
        np.maximum(self._speed[sign], alike_in_noise * smooth + np.float32(_SLOWEST), out=self._speed[sign])
        k, j, i = (int(np.clip(round(c), 0, n - 1)) for c, n in zip(position, self._smoothed.shape, strict=True))
        self._starts[sign].append((k, j, i))
        self._is_late[sign] = True

    def set_previous_mask(self, mask: NDArray[np.generic]) -> None:
        """``(k, j, i)``: the mask that the clicks so far gave, 0…1."""
        self._array[4] = mask

    def _cube(self, position: tuple[float, float, float], half_edge: int) -> tuple[slice, ...]:
        cube = []
        for centre, edge in zip(position, self._smoothed.shape, strict=True):
            nearest = int(np.clip(round(centre), 0, edge - 1))
            cube.append(slice(max(nearest - half_edge, 0), nearest + half_edge + 1))
        return tuple(cube)


def _nearness(speed: Array, starts: list[Voxel]) -> Array:
    """1 at the ``starts``, a half where a front of this speed (k, j, i) arrives after ``_HALF_NEAR``, and so on to 0.

    The front obeys the eikonal equation (fast marching; Sethian, PNAS 1996).
    """
    march = sitk.FastMarchingImageFilter()
    march.SetTrialPoints([(i, j, k) for k, j, i in starts])
    march.SetStoppingValue(_LATEST)
    arrival = sitk.GetArrayFromImage(march.Execute(sitk.GetImageFromArray(speed)))
    nearness: Array = (1 / (1 + np.minimum(arrival, _LATEST) / _HALF_NEAR)).astype(np.float32)
    return nearness


def robust_score(image: NDArray[np.floating]) -> Array:
    """``(image - median) / robust standard deviation``, clipped to ±4.

    The deviation is that of the voxels between the 2nd and 98th percentile, so that a little metal or air around the
    body does not squeeze the rest; a constant window gives zeros.
    """
    low, middle, high = np.percentile(image, (2, 50, 98))
    spread = float(np.clip(image, low, high).std())
    if spread <= 1e-6 * max(1.0, abs(float(middle))):
        return np.zeros(image.shape, np.float32)
    return np.clip((image - middle) / spread, -4, 4).astype(np.float32)
