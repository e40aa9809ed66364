"""Maps of a whole volume from the maps of its windows, weighted as the segmentation is.

A stitched map lies on the layer's own grid where windows allow it: their maps meet voxel on voxel when the distances
between windows are multiples of the stride. Where they are not, every voxel is repeated on the finest grid on which
they do; nothing is interpolated. Beside the weighted mean goes the weighted standard deviation over the windows: where
it is large, the map tells of the window and not of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.inference.windows import Window, WindowLayout
from LKSegmentLib.volumes import Grid

from .map_storage import Float, Zeros, in_memory

BYTES_PER_VOXEL = 12  # mean, squared deviation, weight


@dataclass(frozen=True)
class Part:
    """What one window adds along one axis: `target` of the stitched map, from voxels `source` of its own, `weight`."""

    target: slice
    source: NDArray[np.intp]
    weight: Float


@dataclass(frozen=True)
class AxisLattice:
    """Where the voxels of a stitched map are along one axis.

    Attributes:
        origin: centre of voxel 0, in voxels of the working grid.
        step: working voxels from one voxel to the next.
        count: how many there are.
        first: of all the windows' voxels, the number of the one that is voxel 0: those beyond the volume are left out.
    """

    starts: tuple[int, ...]
    window_weight: Float
    stride: int
    offset: float
    origin: float
    step: int
    count: int
    first: int

    @classmethod
    def of(cls, starts: tuple[int, ...], length: int, window_weight: Float, stride: int, offset: float) -> AxisLattice:
        """The lattice of maps of `stride` and `offset` from windows at `starts`, over a volume of `length` voxels."""
        step = math.gcd(stride, *(start - starts[0] for start in starts))
        repeats = stride // step
        outermost = starts[0] + offset - (repeats - 1) / 2 * step
        per_window = -(-len(window_weight) // stride) * repeats
        available = (starts[-1] - starts[0]) // step + per_window
        # Voxels that cover at least a part of the volume.
        first = max(0, math.floor((-0.5 - step / 2 - outermost) / step) + 1)
        last = min(available, math.ceil((length - 0.5 + step / 2 - outermost) / step))
        return cls(starts, window_weight, stride, offset, outermost + first * step, step, last - first, first)

    def part(self, start: int, voxels: int) -> Part:
        """What the window at `start`, whose map has `voxels` voxels along this axis, adds."""
        repeats = self.stride // self.step
        numbers = np.arange(voxels * repeats)
        targets = numbers + (start - self.starts[0]) // self.step - self.first
        inside = (targets >= 0) & (targets < self.count)
        places = self.offset - (repeats - 1) / 2 * self.step + numbers * self.step
        weight = np.interp(places, np.arange(len(self.window_weight)), self.window_weight)
        low = int(targets[inside][0]) if inside.any() else 0
        kept = slice(low, low + int(inside.sum()))
        return Part(kept, (numbers // repeats)[inside], weight[inside].astype(np.float32))


@dataclass(frozen=True)
class Lattice:
    """Where the voxels of a stitched map are: one lattice for each of k, j, i."""

    axes: tuple[AxisLattice, AxisLattice, AxisLattice]

    @classmethod
    def of(cls, layout: WindowLayout, stride: int, offset: float) -> Lattice:
        """The lattice of maps of this stride and offset (window voxels) over the layout's volume."""
        k, j, i = (
            AxisLattice.of(starts, length, weight, stride, offset)
            for starts, length, weight in zip(layout.starts, layout.shape, layout.weights, strict=True)
        )
        return cls((k, j, i))

    @classmethod
    def of_windows(cls, layout: WindowLayout) -> Lattice:
        """The lattice for numbers that hold for a whole window: fine enough for the borders between windows."""
        k, j, i = (
            AxisLattice.of(starts, length, weight, len(weight), (len(weight) - 1) / 2)
            for starts, length, weight in zip(layout.starts, layout.shape, layout.weights, strict=True)
        )
        return cls((k, j, i))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (k, j, i)."""
        k, j, i = (axis.count for axis in self.axes)
        return k, j, i

    @property
    def steps(self) -> tuple[int, int, int]:
        """Working voxels between voxels along (k, j, i)."""
        k, j, i = (axis.step for axis in self.axes)
        return k, j, i

    def grid(self, working: Grid) -> Grid:
        """The voxels in the world; `working` is the grid that the windows belong to."""
        matrix = np.eye(4)
        matrix[:3, :3] = working.ijk_to_ras[:3, :3] * np.array(self.steps[::-1])
        matrix[:3, 3] = working.ras_of([axis.origin for axis in self.axes[::-1]])
        return Grid(self.shape, matrix)

    def parts(self, window: Window, shape: Sequence[int]) -> tuple[Part, Part, Part]:
        """What a window whose map has this shape adds along k, j and i."""
        k, j, i = (axis.part(start, voxels) for axis, start, voxels in zip(self.axes, window.lower, shape, strict=True))
        return k, j, i


class StitchedMap:
    """The weighted mean of the windows' maps and their weighted standard deviation (West 1979, in one pass)."""

    def __init__(self, lattice: Lattice, zeros: Zeros = in_memory) -> None:
        self.lattice = lattice
        self._mean, self._squares, self._weight = (zeros(lattice.shape) for _ in range(3))

    def add(self, window: Window, values: Float) -> None:
        """Add the map (k, j, i) of a window."""
        parts = self.lattice.parts(window, values.shape)
        place, weight = _place(parts), _weight(parts)
        here = values[np.ix_(*(part.source for part in parts))]
        total = self._weight[place]
        total += weight
        difference = here - self._mean[place]
        self._mean[place] += difference * (weight / total)
        self._squares[place] += weight * difference * (here - self._mean[place])

    def finished(self) -> tuple[Float, Float]:
        """(mean, disagreement), each (k, j, i) in the map's own unit. The object is spent afterwards."""
        np.divide(self._squares, self._weight, out=self._squares)
        np.maximum(self._squares, 0, out=self._squares)
        return self._mean, np.sqrt(self._squares, out=self._squares)


class WindowMap:
    """A number for each window, drawn as it is: every voxel has that of the window that weighs most there."""

    def __init__(self, lattice: Lattice, zeros: Zeros = in_memory) -> None:
        self.lattice = lattice
        self.values: list[tuple[tuple[int, int, int], float]] = []
        self._value, self._best = zeros(lattice.shape), zeros(lattice.shape)

    def add(self, window: Window, value: float) -> None:
        """Add the number of a window."""
        self.values.append((window.lower, value))
        parts = self.lattice.parts(window, (1, 1, 1))
        place, weight = _place(parts), _weight(parts)
        better = weight > self._best[place]
        self._value[place][better] = value
        self._best[place][better] = weight[better]

    def finished(self) -> Float:
        """The map (k, j, i)."""
        return self._value


def _place(parts: tuple[Part, Part, Part]) -> tuple[slice, slice, slice]:
    return parts[0].target, parts[1].target, parts[2].target


def _weight(parts: tuple[Part, Part, Part]) -> Float:
    k, j, i = (part.weight for part in parts)
    product: Float = k[:, None, None] * (j[:, None] * i)
    return product
