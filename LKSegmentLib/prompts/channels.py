"""Clicks → the input channels of a click model, on one window of isotropic voxels.

Intensity is told three ways, since one scale does not serve air, bone and two soft tissues at once: over the whole
window, relative to what surrounds the first click, and as similarity to each click. The similarity channels are what
makes clicks count; they are measured once against the contrast around the click and once against the noise there.
What is alike may lie elsewhere, so the nearness channels measure the way to the next click through tissue alike.
A correction is about what is wrong *now*: the last channel tells which clicks the mask has not answered yet, and how
far what they mean may reach on their side of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    "correction",  # nearness to clicks not answered yet, + outside of the mask to be added, - inside to be removed
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
_FARTHEST = 1 / (1 + _LATEST / _HALF_NEAR)  # nearness of what the front does not reach
_ACROSS = 0.02  # share of its speed that a correction's front has on the wrong side of the mask's surface
_NEARNESS, _CORRECTION = 9, 11  # places in CHANNELS

Array = NDArray[np.float32]
Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class _Click:
    """A click inside the window, and what is around it: the value, the noise, and how steep the image is."""

    voxel: Voxel
    positive: bool
    value: float
    noise: float
    steepness: float


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
        self._wants_fronts = any(number >= _NEARNESS for number in self._wanted)
        if self._wants_fronts:
            self._steepness = ndimage.gaussian_gradient_magnitude(normalised, _SMOOTHING, mode="nearest")
            self._speed: Array = np.full((2, *image.shape), _SLOWEST, np.float32)
        self._clicks: list[_Click | None] = []  # None: outside of the window
        self._answered = 0  # clicks that the previous mask answers
        self._is_late = [False, False, False]  # whether nearness of a sign, and the correction, are to be measured

    @property
    def array(self) -> Array:
        """The channels ``(len(names), k, j, i)``."""
        for sign in (0, 1):
            if self._is_late[sign] and _NEARNESS + sign in self._wanted:
                starts = [click.voxel for click in self._clicks if click is not None and click.positive != bool(sign)]
                self._array[_NEARNESS + sign] = _nearness(self._speed[sign], starts)
                self._is_late[sign] = False
        if self._is_late[2] and _CORRECTION in self._wanted:
            self._array[_CORRECTION] = _less_the_farthest(self._reach(True)) - _less_the_farthest(self._reach(False))
            self._is_late[2] = False
        return self._array if self._wanted == list(range(len(CHANNELS))) else self._array[self._wanted]

    @property
    def clicks(self) -> int:
        """How many clicks there are, those outside of the window included."""
        return len(self._clicks)

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
        self._clicks.append(None)
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
        alike_in_noise = self._alike(float(value), noise)
        np.maximum(self._array[7 + sign], alike_in_noise, out=self._array[7 + sign])
        if self._wants_fronts:
            k, j, i = (int(np.clip(round(c), 0, n - 1)) for c, n in zip(position, self._smoothed.shape, strict=True))
            steepness = float(np.median(self._steepness[self._cube(position, _NEIGHBOURHOOD + 1)]))
            click = _Click((k, j, i), positive, float(value), noise, max(steepness, _LEAST_NOISE))
            self._clicks[-1] = click
            np.maximum(self._speed[sign], self._speed_from(click), out=self._speed[sign])
            self._is_late[sign] = self._is_late[2] = True
        if not self._has_reference:
            ranks = np.linspace(-1, 1, 65)
            self._array[1] = np.interp(self._array[0], quantiles, ranks) - np.interp(value, quantiles, ranks)
            self._has_reference = True

    def set_previous_mask(self, mask: NDArray[np.generic], answered: int) -> None:
        """``(k, j, i)``: the mask, 0…1, that the first ``answered`` clicks gave; those after are the correction."""
        self._array[4] = mask
        self._answered = answered
        self._is_late[2] = True

    def _alike(self, value: float, noise: float) -> Array:
        """How alike every voxel is to a click with this value and noise around it."""
        scaled = (self._smoothed - np.float32(value)) * np.float32(0.5 / noise)
        alike: Array = np.exp(np.square(scaled) * np.float32(-0.5))
        return alike

    def _speed_from(self, click: _Click) -> Array:
        """Of the front that starts at a click: fast through tissue like it and slow across edges."""
        smooth = 1 / (1 + np.square(self._steepness * np.float32(0.5 / click.steepness)))
        speed: Array = self._alike(click.value, click.noise) * smooth + np.float32(_SLOWEST)
        return speed

    def _reach(self, positive: bool) -> Array | float:
        """Nearness to the clicks of one sign that are not answered yet, on their side of the previous mask."""
        clicks = [click for click in self._clicks[self._answered :] if click is not None and click.positive == positive]
        if not clicks:
            return _FARTHEST
        before_any = not self._answered and not self._array[4].any()
        if positive and before_any and _NEARNESS in self._wanted:
            return self._array[_NEARNESS]  # the same front
        speed = np.maximum.reduce([self._speed_from(click) for click in clicks])
        wrong_side = (self._array[4] > 0.5) == positive
        speed[wrong_side] *= np.float32(_ACROSS)
        return _nearness(speed, [click.voxel for click in clicks])

    def _cube(self, position: tuple[float, float, float], half_edge: int) -> tuple[slice, ...]:
        cube = []
        for centre, edge in zip(position, self._smoothed.shape, strict=True):
            nearest = int(np.clip(round(centre), 0, edge - 1))
            cube.append(slice(max(nearest - half_edge, 0), nearest + half_edge + 1))
        return tuple(cube)


def _nearness(speed: Array, starts: list[Voxel]) -> Array:
    """1 at the ``starts``, a half where a front of this speed (k, j, i) arrives after ``_HALF_NEAR``, and so on to 0.

    The front obeys the eikonal equation (fast marching; Sethian, PNAS 1996). It is followed on every second voxel,
    at an eighth of the time: speed is measured in a smoothed image, which has hardly more detail.
    """
    padded = np.pad(np.log(speed), [(0, edge % 2) for edge in speed.shape], mode="edge")
    k, j, i = (edge // 2 for edge in padded.shape)
    coarse = np.exp(padded.reshape(k, 2, j, 2, i, 2).mean((1, 3, 5)))
    image = sitk.GetImageFromArray(coarse)
    image.SetSpacing((2.0, 2.0, 2.0))
    march = sitk.FastMarchingImageFilter()
    march.SetTrialPoints([(i // 2, j // 2, k // 2) for k, j, i in starts])
    march.SetStoppingValue(_LATEST)
    arrived = march.Execute(image)
    arrival = np.minimum(sitk.GetArrayFromImage(arrived), _LATEST)
    nearness: Array = (1 / (1 + arrival / _HALF_NEAR)).astype(np.float32)
    for axis in range(3):
        nearness = _doubled(nearness, axis)
    nearness = nearness[tuple(slice(edge) for edge in speed.shape)]
    for start in starts:
        nearness[start] = 1
    return nearness


def _less_the_farthest(nearness: Array | float) -> Any:
    """Nearness on a scale of 0 at the farthest to 1."""
    return (nearness - np.float32(_FARTHEST)) * np.float32(1 / (1 - _FARTHEST))


def _doubled(values: Array, axis: int) -> Array:
    """Twice as many values along an axis, linearly between the middles of the coarse ones."""
    moved = np.moveaxis(values, axis, 0)
    before, after = np.concatenate((moved[:1], moved[:-1])), np.concatenate((moved[1:], moved[-1:]))
    doubled = np.stack((0.75 * moved + 0.25 * before, 0.75 * moved + 0.25 * after), 1)
    return np.moveaxis(doubled.reshape(-1, *moved.shape[1:]), 0, axis)


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
