"""Clicks → the input channels of a click model, on one window of isotropic voxels.

The similarity channels are what makes clicks count: they say where the image looks as it does at the click, once with
a fixed tolerance and once with the tolerance that the noise around the click suggests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CHANNELS = (
    "image",  # robust z-score of the window, clipped to ±4
    "contrast to first click",  # tanh of the smoothed image minus its value at the first click
    "positive clicks",
    "negative clicks",
    "previous mask",
    "similarity to positive clicks",
    "similarity to negative clicks",
    "noise-scaled similarity to positive clicks",
    "noise-scaled similarity to negative clicks",
)

_SMOOTHING = 1.0  # voxels; the image in which similarity is measured
_TOLERANCE = 0.35  # robust standard deviations of the window
_NEAR, _FAR = 2.0, 12.0  # voxels; a click is a narrow Gaussian plus a broad exponential
_NEIGHBOURHOOD = 2  # voxels; half edge of the cube that tells the value and the noise at a click
_LEAST_NOISE = 0.05  # robust standard deviations; keeps noise-free images from an infinitely sharp similarity

Array = NDArray[np.float32]


class PromptChannels:
    """The channels of one window; clicks and masks are added as they come.

    Args:
        image: ``(k, j, i)`` intensities of any unit, finite.
    """

    def __init__(self, image: NDArray[np.floating]) -> None:
        normalised = robust_score(image)
        self.array: Array = np.zeros((len(CHANNELS), *image.shape), np.float32)
        self.array[0] = normalised
        self._smoothed = ndimage.gaussian_filter(normalised, _SMOOTHING, mode="nearest")
        self._axes = [np.arange(edge, dtype=np.float32) for edge in image.shape]
        self._clicks = 0

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
        np.maximum(self.array[2 + sign], 0.5 * (near + far), out=self.array[2 + sign])
        if not all(-0.5 <= place <= edge - 0.5 for place, edge in zip(position, self._smoothed.shape, strict=True)):
            return
        value, noise = self._look_around(position)
        difference = np.abs(self._smoothed - value)
        np.maximum(self.array[5 + sign], np.exp(difference / -np.float32(_TOLERANCE)), out=self.array[5 + sign])
        scaled = np.exp(np.square(difference / np.float32(2 * noise)) * np.float32(-0.5))
        np.maximum(self.array[7 + sign], scaled, out=self.array[7 + sign])
        if self._clicks == 0:
            self.array[1] = np.tanh((self._smoothed - value) * np.float32(2))
        self._clicks += 1

    def set_previous_mask(self, mask: NDArray[np.generic]) -> None:
        """``(k, j, i)``: the mask that the clicks so far gave, 0…1."""
        self.array[4] = mask

    def _look_around(self, position: tuple[float, float, float]) -> tuple[np.float32, float]:
        """Mean and standard deviation of the smoothed image in the 5³ voxels around a click."""
        cube = []
        for centre, edge in zip(position, self._smoothed.shape, strict=True):
            nearest = int(np.clip(round(centre), 0, edge - 1))
            cube.append(slice(max(nearest - _NEIGHBOURHOOD, 0), nearest + _NEIGHBOURHOOD + 1))
        around = self._smoothed[tuple(cube)]
        return np.float32(np.median(around)), max(float(around.std()), _LEAST_NOISE)


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
