"""Slicer's own Grow from seeds as a click method: the baseline that the click model is measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

_FOREGROUND, _BACKGROUND = 1, 2
_SEED_RADIUS = 1  # voxels; a click is a small cube, as a brush would leave


class GrowFromSeeds:
    """Clicks → mask (k, j, i) by ``vtkImageGrowCutSegment``: clicks are seeds, the volume's border is background.

    The algorithm behind the Segment Editor's effect "Grow from seeds", with its default settings. As the effect does,
    it keeps the filter while seeds are only added: then it works out again just what they change.
    """

    def __init__(self) -> None:
        self._volume: Volume | None = None
        self._points: tuple[Point, ...] = ()

    def __call__(self, volume: Volume, points: Sequence[Point]) -> NDArray[np.bool_]:
        """The mask after these clicks, in order."""
        clicks = tuple(points)
        if self._volume is not volume or clicks[: len(self._points)] != self._points:
            self._grow = slicer.vtkImageGrowCutSegment()
            self._grow.SetIntensityVolume(_image(volume.array.astype(np.float32), volume.spacing))
            self._volume = volume
        self._points = clicks
        self._grow.SetSeedLabelVolume(_image(_seeds(volume, clicks), volume.spacing))
        self._grow.Update()
        labels = numpy_support.vtk_to_numpy(self._grow.GetOutput().GetPointData().GetScalars())
        return labels.reshape(volume.grid.shape) == _FOREGROUND


def _seeds(volume: Volume, points: Sequence[Point]) -> NDArray[np.uint8]:
    seeds = np.zeros(volume.grid.shape, np.uint8)
    for axis in range(3):
        for face in (0, -1):
            np.moveaxis(seeds, axis, 0)[face] = _BACKGROUND
    for point in points:
        centre = np.round(volume.grid.ijk_of(point.ras)[::-1]).astype(int)
        around = tuple(slice(max(middle - _SEED_RADIUS, 0), middle + _SEED_RADIUS + 1) for middle in centre)
        seeds[around] = _FOREGROUND if point.positive else _BACKGROUND
    return seeds


def _image(array: NDArray[np.generic], spacing: tuple[float, float, float]) -> vtk.vtkImageData:
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.SetSpacing(*spacing)
    scalars = numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True)
    image.GetPointData().SetScalars(scalars)
    return image
