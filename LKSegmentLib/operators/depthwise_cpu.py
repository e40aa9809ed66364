"""The direct depth-wise convolution on a CPU: phases, channel groups and slabs.

Nothing here changes a value; it decides in which order the same products are added.

- *Phases.* The padding of an odd kernel, ``dilation * (edge // 2)``, is a multiple of the dilation, so an output
  voxel only ever sees input voxels of its own residue modulo the dilation: a dilated convolution is
  ``dilation³`` independent dense ones on strided sub-grids, stacked here on the batch axis.
- *Channel groups.* The processor's vector runs along the channels. The rows under one kernel (edge² of them) are
  read again for every tap; they should fit the first-level cache, so only so many channels are taken at a time:
  2 to 4 times faster than all channels at once.
- *Slabs.* Large maps pass in slabs of planes (see `slabs`): large temporary tensors cost more than the arithmetic.
- *Dead taps.* A tap that reaches beyond the whole map meets nothing but zero padding and is left out. At the
  deepest level of D-Net that is 342 of 343 taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from .packed import NOTHING, Activation, PackedConvolution, as_batch
from .slabs import SLAB_BYTES, windows_of

# Bytes of the rows under one kernel, for one channel group; and the lanes of the widest vector in use today.
_ROWS_BYTES = 64 * 1024
_LANES = 16
# A map of so many bytes needs no channel groups; one of so many no slabs (torch then gets its memory cheaply).
_SMALL_BYTES = 2**20
_ONE_SLAB_BYTES = 24 * 2**20


class PackedDepthwise:
    """A depth-wise convolution of one map, zero padding, stride 1, with its activation. No gradients.

    Args:
        weight: (channels, 1, a, b, c) with odd edges.
        bias: (channels,) or None.
        dilation: the same along every axis.
        activation: what follows.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, dilation: int = 1, activation: Activation = NOTHING
    ) -> None:
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.dilation = dilation
        self.activation = activation
        self.halves = tuple(edge // 2 for edge in weight.shape[2:])
        self._packed: dict[tuple[int, ...], PackedConvolution] = {}

    @property
    def reach(self) -> int:
        """Planes that the kernel reaches to either side."""
        return self.dilation * self.halves[0]

    def slab_planes(self, rows: int, columns: int) -> int:
        """Planes of a sensible slab: the halo is copied along, so a slab is thicker than it."""
        channels = self.weight.shape[0]
        planes = max(SLAB_BYTES // (rows * columns * channels * 4), self.reach + 1, 2)
        return -(-planes // self.dilation) * self.dilation

    @staticmethod
    def takes_whole(x: Tensor) -> bool:
        """Whether a map is better convolved at once than in slabs; always so on other devices than a CPU."""
        return x.device.type != "cpu" or x.numel() * x.element_size() <= _ONE_SLAB_BYTES

    def __call__(self, x: Tensor) -> Tensor:
        """(planes, rows, columns, channels) → the same shape."""
        slab = self.slab_planes(*x.shape[1:3])
        if x.shape[0] <= slab or self.takes_whole(x):
            return self._convolved(x, padded=True)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        filled = 0
        for part in map(self.of_window, windows_of(x, slab, self.reach)):
            out[filled : filled + part.shape[0]] = part
            filled += part.shape[0]
        return out

    def of_window(self, window: Tensor) -> Tensor:
        """(n + 2 · reach planes, rows, columns, channels) → (n, …); only rows and columns are padded."""
        return self._convolved(window, padded=False)

    def _convolved(self, x: Tensor, padded: bool) -> Tensor:
        size, channels, d = x.shape[:3], x.shape[3], self.dilation
        phase = [-(-edge // d) for edge in size]
        halves = [min(half, edge - 1) for half, edge in zip(self.halves, phase, strict=True)]
        if not padded:
            halves[0] = self.halves[0]
        group = self._group(phase[2], halves, x)
        if group >= channels:
            return self._phases_convolved(x, 0, channels, halves, padded)
        planes = size[0] if padded else size[0] - 2 * self.reach
        out = x.new_empty((planes, *x.shape[1:]))
        for first in range(0, channels, group):
            last = min(first + group, channels)
            out[..., first:last] = self._phases_convolved(x[..., first:last], first, last, halves, padded)
        return out

    def _group(self, columns: int, halves: list[int], x: Tensor) -> int:
        if x.device.type != "cpu" or x.numel() * x.element_size() <= _SMALL_BYTES:
            return x.shape[3]
        rows = (2 * halves[0] + 1) * (2 * halves[1] + 1)
        return max(_LANES, _ROWS_BYTES // (rows * columns * x.element_size()) // _LANES * _LANES)

    def _phases_convolved(self, x: Tensor, first: int, last: int, halves: list[int], padded: bool) -> Tensor:
        convolution = self._convolution(first, last, tuple(halves), padded)
        if self.dilation == 1:
            return convolution(x.contiguous())
        phases = split_phases(as_batch(x), self.dilation)
        planes = x.shape[0] if padded else x.shape[0] - 2 * self.reach
        joined = join_phases(convolution.of_batch(phases), (1, last - first, planes, *x.shape[1:3]), self.dilation)
        return joined.squeeze(0).permute(1, 2, 3, 0)

    def _convolution(self, first: int, last: int, halves: tuple[int, ...], padded: bool) -> PackedConvolution:
        key = (first, last, *halves, padded)
        if key not in self._packed:
            taps = [slice(full - half, full + half + 1) for full, half in zip(self.halves, halves, strict=True)]
            self._packed[key] = PackedConvolution(
                self.weight[(slice(first, last), slice(None), *taps)].contiguous(),
                None if self.bias is None else self.bias[first:last],
                padding=(halves[0] if padded else 0, *halves[1:]),
                groups=last - first,
                activation=self.activation,
            )
        return self._packed[key]


def direct(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """``(batch, channels, k, j, i)`` → the same shape, in channels-last memory."""
    convolution = PackedDepthwise(weight, bias, dilation)
    voxels = x.detach().permute(0, 2, 3, 4, 1)
    results = [convolution(sample) for sample in voxels]
    stacked = results[0].unsqueeze(0) if len(results) == 1 else torch.stack(results)
    return stacked.permute(0, 4, 1, 2, 3)


def split_phases(x: Tensor, dilation: int) -> Tensor:
    """``(b, c, k, j, i)`` → ``(b·d³, c, ⌈k/d⌉, ⌈j/d⌉, ⌈i/d⌉)``, channels last. Zeros fill up ragged ends."""
    batch, channels, *size = x.shape
    missing = [-edge % dilation for edge in size]
    if any(missing):
        x = functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))
    k, j, i = ((edge + more) // dilation for edge, more in zip(size, missing, strict=True))
    x = x.permute(0, 2, 3, 4, 1).reshape(batch, k, dilation, j, dilation, i, dilation, channels)
    x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch * dilation**3, k, j, i, channels)
    return x.permute(0, 4, 1, 2, 3)


def join_phases(phases: Tensor, shape: tuple[int, ...], dilation: int) -> Tensor:
    """The inverse of :func:`split_phases`, cropped to ``shape``."""
    batch, channels, *size = shape
    k, j, i = phases.shape[2:]
    x = phases.permute(0, 2, 3, 4, 1).reshape(batch, dilation, dilation, dilation, k, j, i, channels)
    x = x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, k * dilation, j * dilation, i * dilation, channels)
    return x[:, : size[0], : size[1], : size[2]].permute(0, 4, 1, 2, 3)


