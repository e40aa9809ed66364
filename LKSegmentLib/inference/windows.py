"""Where the windows lie, and how their answers are stitched without ever holding classes times the volume.

All windows lie on one lattice: their distances are multiples of the network's size multiple (its largest
stride) or of the largest part of it that the wanted overlap allows (16 for D-Net's 32, windows of 96 and overlap
0.5). Maps recorded inside the network at strides up to that meet voxel on voxel when they are stitched.
Windows may reach beyond the volume by less than a lattice step; what lies outside is padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

Size = tuple[int, int, int]

# The Gaussian of nnU-Net's and MONAI's sliding windows: standard deviation in window lengths.
SIGMA = 0.125
# Each axis keeps at least this weight, so that the product of three stays well within float32.
SMALLEST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Window:
    """One window: its running number and its lower corner (k, j, i) in voxels of the volume, maybe negative."""

    index: int
    lower: Size
    size: Size

    @property
    def upper(self) -> Size:
        """The corner (k, j, i) just past the window."""
        k, j, i = (low + length for low, length in zip(self.lower, self.size, strict=True))
        return k, j, i


@dataclass(frozen=True)
class Region:
    """A box of the volume: lower <= (k, j, i) < upper."""

    lower: Size
    upper: Size

    @property
    def shape(self) -> Size:
        """Voxels along (k, j, i)."""
        k, j, i = (high - low for low, high in zip(self.lower, self.upper, strict=True))
        return k, j, i

    def overlap(self, window: Window) -> Region | None:
        """Return the part of the region inside the window, or None when there is none."""
        lower = tuple(max(pair) for pair in zip(self.lower, window.lower, strict=True))
        upper = tuple(min(pair) for pair in zip(self.upper, window.upper, strict=True))
        if any(low >= high for low, high in zip(lower, upper, strict=True)):
            return None
        return Region((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))

    def slices(self, origin: Size) -> tuple[slice, slice, slice]:
        """Return the region as slices of an array whose first voxel is `origin`."""
        k, j, i = (
            slice(low - first, high - first) for low, high, first in zip(self.lower, self.upper, origin, strict=True)
        )
        return k, j, i


@dataclass(frozen=True)
class WindowLayout:
    """All windows over a volume of `shape`, and their weights.

    `starts` holds the lower ends along k, j and i; the windows are all combinations, i running fastest.
    Distances between windows are multiples of `lattice` voxels.
    """

    shape: Size
    size: Size
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    lattice: int = 1

    @property
    def count(self) -> int:
        """How many windows there are."""
        return math.prod(len(along) for along in self.starts)

    @cached_property
    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The importance of a window's voxels along k, j and i; a voxel's weight is the product of the three."""
        k, j, i = (importance(length) for length in self.size)
        return k, j, i

    @cached_property
    def totals(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The sums of all windows' weights along each axis of the volume.

        The windows are all combinations of the starts and a weight is a product, so a voxel's total weight is
        the product of these three: no array of the volume's size is needed.
        """
        k, j, i = (
            total_weight(length, starts, weight)
            for length, starts, weight in zip(self.shape, self.starts, self.weights, strict=True)
        )
        return k, j, i

    def windows(self) -> Iterator[Window]:
        """Yield the windows in order of k, then j, then i."""
        for k_number in range(len(self.starts[0])):
            yield from self.layer(k_number)

    def layer(self, k_number: int) -> Iterator[Window]:
        """Yield the windows that share the start number `k_number` along k."""
        index = k_number * len(self.starts[1]) * len(self.starts[2])
        for j in self.starts[1]:
            for i in self.starts[2]:
                yield Window(index, (self.starts[0][k_number], j, i), self.size)
                index += 1


def window_layout(shape: Size, size: Size, overlap: float, multiple: int = 1) -> WindowLayout:
    """Return the windows that cover a volume.

    shape, size  of the volume and the window, voxels (k, j, i); the window is rounded up to `multiple`
    overlap      the least share of a window that its neighbour covers too, 0 <= overlap < 1
    multiple     of voxels between windows: the network's size multiple
    """
    rounded = tuple(-(-length // multiple) * multiple for length in size)
    lattice = math.gcd(multiple, *(largest_step(window, overlap) for window in rounded))
    starts = tuple(
        starts_along(length, window, overlap, lattice) for length, window in zip(shape, rounded, strict=True)
    )
    return WindowLayout(shape, (rounded[0], rounded[1], rounded[2]), (starts[0], starts[1], starts[2]), lattice)


def largest_step(window: int, overlap: float) -> int:
    """Return the largest distance between windows, in voxels, that keeps the overlap."""
    return max(1, int(window * (1.0 - overlap)))


def starts_along(length: int, window: int, overlap: float, lattice: int) -> tuple[int, ...]:
    """Return the starts of the windows along one axis, evenly spread on the lattice, padding shared by both ends."""
    last = -(-max(0, length - window) // lattice)
    step = max(1, largest_step(window, overlap) // lattice)
    count = -(-last // step) + 1
    before = (last * lattice + window - length) // 2
    spread = [round(number * last / max(1, count - 1)) for number in range(count)]
    return tuple(number * lattice - before for number in spread)


def importance(length: int) -> NDArray[np.float32]:
    """Return the Gaussian weights along one axis of a window, 1 in the middle and at least 0.001."""
    centred = (np.arange(length) - (length - 1) / 2) / (SIGMA * length)
    return np.maximum(np.exp(-0.5 * centred**2), SMALLEST_WEIGHT).astype(np.float32)


def total_weight(length: int, starts: tuple[int, ...], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of the windows' weights at each voxel along one axis."""
    total = np.zeros(length, dtype=np.float32)
    for start in starts:
        low, high = max(0, start), min(length, start + len(weight))
        total[low:high] += weight[low - start : high - start]
    return total


def cut(array: NDArray[np.float32], window: Window, padding: tuple[float, ...]) -> torch.Tensor:
    """Return the window of a (channel, k, j, i) array as a tensor (1, channel, k, j, i), padded outside."""
    tensor = torch.empty((1, len(array), *window.size), dtype=torch.float32)
    whole = Region((0, 0, 0), (array.shape[1], array.shape[2], array.shape[3]))
    inside = whole.overlap(window)
    for channel, value in enumerate(padding):
        if inside is None or inside.shape != window.size:
            tensor[0, channel] = value
        if inside is not None:
            source = torch.from_numpy(array[channel][inside.slices((0, 0, 0))])
            tensor[0, channel][inside.slices(window.lower)] = source
    return tensor


def stitched(
    layout: WindowLayout, region: Region, channels: int, answer: Callable[[Window], torch.Tensor], device: torch.device
) -> Iterator[tuple[int, torch.Tensor]]:
    """Run all windows that touch `region` and yield their weighted mean as soon as it is complete.

    answer   returns the logits (channels, k, j, i) of a window, in the order of `WindowLayout.windows`
    device   where the sums are kept

    Yields (k, slab): the first slice and a float32 tensor (channels, n, j, i) over the region's j and i.
    Slabs follow each other along k. A slab is a view that is overwritten once the next one is asked for.
    The region must span the whole volume along k. Memory: channels x the window along k x the region's j, i.
    """
    depth = min(layout.size[0], region.shape[0])
    _, height, width = region.shape
    # A ring: slice k of the volume lives at k modulo depth, as no two slices in work are further apart.
    ring = torch.zeros((channels, depth, height, width), dtype=torch.float32, device=device)
    weights = [torch.from_numpy(weight).to(device) for weight in layout.weights]
    totals = [torch.from_numpy(total).to(device) for total in layout.totals]
    plane = totals[1][region.lower[1] : region.upper[1], None] * totals[2][region.lower[2] : region.upper[2]]
    done = region.lower[0]
    for number in range(len(layout.starts[0])):
        for window in layout.layer(number):
            inside = region.overlap(window)
            if inside is None:
                continue
            logits = answer(window).to(device)
            k, j, i = inside.slices(window.lower)
            sheet = weights[1][j, None] * weights[2][i]
            for ring_part, window_part in ring_parts(inside.lower[0], inside.upper[0], depth, k.start):
                _, target_j, target_i = inside.slices(region.lower)
                weight = weights[0][window_part, None, None] * sheet
                ring[:, ring_part, target_j, target_i].addcmul_(logits[:, window_part, j, i], weight)
        last = number + 1 == len(layout.starts[0])
        complete = region.upper[0] if last else min(region.upper[0], max(done, layout.starts[0][number + 1]))
        for ring_part, volume_part in ring_parts(done, complete, depth, done):
            slab = ring[:, ring_part]
            slab /= totals[0][volume_part, None, None] * plane
            yield volume_part.start, slab
            slab.zero_()
        done = complete


def ring_parts(low: int, high: int, depth: int, other: int) -> Iterator[tuple[slice, slice]]:
    """Split the slices low <= k < high where the ring wraps.

    Yields slices of the ring, each with the matching slice of an axis on which `low` is at `other`.
    """
    while low < high:
        place = low % depth
        length = min(high - low, depth - place)
        yield slice(place, place + length), slice(other, other + length)
        low, other = low + length, other + length
